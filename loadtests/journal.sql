-- What the journal bench sets beside the lane: the same work as one SQL function called once a unit.
-- Same tables, indexes, trigger, floor (the constraint on balance), content hash and companion row;
-- rows are locked in one order by the updates themselves, which was the fastest of what we tried.
CREATE TABLE public.companion (
    id   text COLLATE "C" PRIMARY KEY,
    body text NOT NULL
);
CREATE TABLE public.bare (
    id   text COLLATE "C" PRIMARY KEY,
    body text NOT NULL
);
GRANT ALL ON public.companion, public.bare TO brokerd_daemon;

CREATE FUNCTION public.book(
    p_book smallint, p_kind smallint, p_key text, p_content bytea, p_effective date, p_ref text,
    p_from bigint, p_to bigint, p_minor bigint, p_body text
) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    first_id  bigint := least(p_from, p_to);
    other_id  bigint := greatest(p_from, p_to);
    first_add bigint := CASE WHEN p_from < p_to THEN p_minor ELSE -p_minor END;
    one       record;
    two       record;
    number    bigint := nextval('ledger.entry_id');
BEGIN
    UPDATE ledger.balance
       SET posted = posted + first_add, version = version + 1,
           changed = greatest(clock_timestamp(), changed)
     WHERE book_id = p_book AND account_id = first_id
    RETURNING posted, version, changed INTO one;
    UPDATE ledger.balance
       SET posted = posted - first_add, version = version + 1,
           changed = greatest(clock_timestamp(), changed)
     WHERE book_id = p_book AND account_id = other_id
    RETURNING posted, version, changed INTO two;
    INSERT INTO ledger.entry
    VALUES (p_book, number, p_kind, p_key, p_content, p_effective,
            greatest(one.changed, two.changed), p_ref, 2)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the key % is taken', p_key;
    END IF;
    INSERT INTO ledger.posting
    VALUES (p_book, number, CASE WHEN p_from < p_to THEN 0 ELSE 1 END, first_id, one.version,
            first_add, one.posted),
           (p_book, number, CASE WHEN p_from < p_to THEN 1 ELSE 0 END, other_id, two.version,
            -first_add, two.posted);
    INSERT INTO public.companion VALUES (p_key, p_body);
    RETURN 'done';
END $$;
