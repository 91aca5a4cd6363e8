-- What the journal bench sets beside the lane: the same work as one SQL function called once a unit.
-- Same tables, indexes, trigger, floor, content hash and companion row; row locks in one order.
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
    one       ledger.balance;
    two       ledger.balance;
    held      bytea;
    number    bigint;
    moment    timestamptz;
BEGIN
    SELECT * INTO one FROM ledger.balance
     WHERE book_id = p_book AND account_id = least(p_from, p_to) FOR UPDATE;
    SELECT * INTO two FROM ledger.balance
     WHERE book_id = p_book AND account_id = greatest(p_from, p_to) FOR UPDATE;
    one.posted := one.posted + CASE WHEN one.account_id = p_from THEN p_minor ELSE -p_minor END;
    two.posted := two.posted + CASE WHEN two.account_id = p_from THEN p_minor ELSE -p_minor END;
    IF one.sign * one.posted < one.floor OR two.sign * two.posted < two.floor THEN
        RETURN 'floor';
    END IF;
    number := nextval('ledger.entry_id');
    moment := greatest(clock_timestamp(), one.changed, two.changed);
    INSERT INTO ledger.entry
    VALUES (p_book, number, p_kind, p_key, p_content, p_effective, moment, p_ref, 2)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        SELECT content INTO held FROM ledger.entry
         WHERE book_id = p_book AND kind = p_kind AND key = p_key;
        RETURN CASE WHEN held = p_content THEN 'exists' ELSE 'differs' END;
    END IF;
    UPDATE ledger.balance SET posted = one.posted, version = one.version + 1, changed = moment
     WHERE book_id = p_book AND account_id = one.account_id;
    UPDATE ledger.balance SET posted = two.posted, version = two.version + 1, changed = moment
     WHERE book_id = p_book AND account_id = two.account_id;
    INSERT INTO ledger.posting
    VALUES (p_book, number, CASE WHEN one.account_id = p_from THEN 0 ELSE 1 END, one.account_id,
            one.version + 1, CASE WHEN one.account_id = p_from THEN p_minor ELSE -p_minor END,
            one.posted),
           (p_book, number, CASE WHEN two.account_id = p_from THEN 0 ELSE 1 END, two.account_id,
            two.version + 1, CASE WHEN two.account_id = p_from THEN p_minor ELSE -p_minor END,
            two.posted);
    INSERT INTO public.companion VALUES (p_key, p_body);
    RETURN 'done';
END $$;
