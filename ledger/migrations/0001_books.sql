-- The books: entries and postings that can only be added, balances that move with them.
CREATE SCHEMA ledger;

CREATE TABLE ledger.book (
    id       smallint PRIMARY KEY,
    entity   text NOT NULL UNIQUE,
    currency text NOT NULL,
    opened   timestamptz NOT NULL DEFAULT now()
);

CREATE SEQUENCE ledger.account_id;
CREATE TABLE ledger.account (
    book_id  smallint NOT NULL,
    id       bigint NOT NULL DEFAULT nextval('ledger.account_id'),
    kind     smallint NOT NULL,
    owner    text COLLATE "C" NOT NULL,
    currency text COLLATE "C" NOT NULL,
    opened   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (book_id, id),
    UNIQUE (book_id, kind, owner, currency)
);

-- The newest balance of each account; a cache of its last posting that can be locked and checked.
-- `sign` and `floor` repeat the chart, so that the last line of defence stands in the database.
CREATE TABLE ledger.balance (
    book_id    smallint NOT NULL,
    account_id bigint NOT NULL,
    sign       smallint NOT NULL CHECK (sign IN (-1, 1)),
    floor      bigint,
    posted     bigint NOT NULL DEFAULT 0,
    version    bigint NOT NULL DEFAULT 0,
    changed    timestamptz NOT NULL DEFAULT '-infinity',
    PRIMARY KEY (book_id, account_id),
    CONSTRAINT balance_floor CHECK (floor IS NULL OR sign * posted >= floor)
) WITH (fillfactor = 70);

-- `content` is a hash of everything the entry says (`ledger.journal.content`): one key with two
-- contents is an error, not a repetition. `postings` says how many rows belong to it, so that none can be added later.
CREATE SEQUENCE ledger.entry_id INCREMENT BY 1000;
CREATE TABLE ledger.entry (
    book_id   smallint NOT NULL,
    id        bigint NOT NULL,
    kind      smallint NOT NULL,
    key       text COLLATE "C" NOT NULL,
    content   bytea NOT NULL,
    effective date NOT NULL,
    recorded  timestamptz NOT NULL,
    ref       text COLLATE "C" NOT NULL,
    postings  smallint NOT NULL CHECK (postings >= 2),
    PRIMARY KEY (book_id, id),
    UNIQUE (book_id, kind, key)
);

-- Debit positive, credit negative. `version` counts the account's own postings; `balance` is the
-- running balance after this one.
CREATE TABLE ledger.posting (
    book_id    smallint NOT NULL,
    entry_id   bigint NOT NULL,
    seq        smallint NOT NULL,
    account_id bigint NOT NULL,
    version    bigint NOT NULL,
    amount     bigint NOT NULL CHECK (amount <> 0),
    balance    bigint NOT NULL,
    PRIMARY KEY (book_id, entry_id, seq),
    UNIQUE (book_id, account_id, version)
);

-- Money of a wallet set aside; the money itself stands on the client_hold account.
CREATE TABLE ledger.hold (
    id         text COLLATE "C" PRIMARY KEY,
    book_id    smallint NOT NULL,
    client_id  text COLLATE "C" NOT NULL,
    currency   text COLLATE "C" NOT NULL,
    amount     bigint NOT NULL CHECK (amount > 0),
    state      text NOT NULL CHECK (state IN ('open', 'released', 'captured')),
    version    bigint NOT NULL DEFAULT 1,
    placed     timestamptz NOT NULL
);

-- What one room must learn from another, and one work row for each reader that has not read it.
CREATE TABLE ledger.fact (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    kind     text NOT NULL,
    subject  text NOT NULL,
    body     jsonb NOT NULL,
    recorded timestamptz NOT NULL DEFAULT now()
);
CREATE TABLE ledger.fact_work (
    fact_id bigint NOT NULL,
    reader  text NOT NULL,
    PRIMARY KEY (reader, fact_id)
);

-- One row a running lane: its number rises in each commit, so that after a lost answer the lane
-- can read whether its last batch is in the books.
CREATE TABLE ledger.lane (
    id    text PRIMARY KEY,
    batch bigint NOT NULL,
    seen  timestamptz NOT NULL DEFAULT now()
);

CREATE FUNCTION ledger.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on %.% is refused: the books are only added to',
        TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME USING ERRCODE = 'LB001';
END $$;

CREATE TRIGGER entry_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.entry
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER posting_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.posting
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER account_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.account
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER fact_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.fact
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER book_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.book
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER balance_stays BEFORE DELETE OR TRUNCATE ON ledger.balance
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

-- One statement inserts the postings of many entries; this proves all of them at its end: each entry
-- balances and is whole, each posting follows the account's last one, the balance follows them all.
CREATE FUNCTION ledger.prove_postings() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    wrong record;
BEGIN
    SELECT f.book_id, f.entry_id, a.currency, sum(f.amount) AS total INTO wrong
      FROM fresh f
      LEFT JOIN ledger.account a ON a.book_id = f.book_id AND a.id = f.account_id
     GROUP BY f.book_id, f.entry_id, a.currency
    HAVING sum(f.amount) <> 0 OR a.currency IS NULL
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entry %/% is out of balance by % %',
            wrong.book_id, wrong.entry_id, wrong.total, wrong.currency USING ERRCODE = 'LB002';
    END IF;
    SELECT g.book_id, g.entry_id, g.n, e.postings INTO wrong
      FROM (SELECT book_id, entry_id, count(*) AS n, min(seq) AS low, max(seq) AS high
              FROM fresh GROUP BY book_id, entry_id) g
      LEFT JOIN ledger.entry e ON e.book_id = g.book_id AND e.id = g.entry_id
     WHERE e.postings IS DISTINCT FROM g.n OR g.low <> 0 OR g.high <> g.n - 1
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'entry %/% says % postings, got %',
            wrong.book_id, wrong.entry_id, wrong.postings, wrong.n USING ERRCODE = 'LB003';
    END IF;
    SELECT s.book_id, s.account_id, s.version INTO wrong
      FROM (SELECT book_id, account_id, version, amount, balance,
                   lag(version) OVER w AS last, lag(balance) OVER w AS before,
                   lead(version) OVER w IS NULL AS newest
              FROM fresh WINDOW w AS (PARTITION BY book_id, account_id ORDER BY version)) s
      LEFT JOIN ledger.posting p
        ON p.book_id = s.book_id AND p.account_id = s.account_id
       AND p.version = CASE WHEN s.last IS NULL THEN s.version - 1 END
      LEFT JOIN ledger.balance b
        ON b.book_id = s.book_id AND b.account_id = CASE WHEN s.newest THEN s.account_id END
     WHERE s.version <> coalesce(s.last, p.version, 0) + 1
        OR s.balance <> coalesce(s.before, p.balance, 0) + s.amount
        OR s.newest AND (b.version IS DISTINCT FROM s.version
                         OR b.posted IS DISTINCT FROM s.balance)
     LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'posting % of account %/% does not follow the one before, or its balance not it',
            wrong.version, wrong.book_id, wrong.account_id USING ERRCODE = 'LB004';
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER postings_are_proved AFTER INSERT ON ledger.posting
    REFERENCING NEW TABLE AS fresh
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.prove_postings();

-- The balance of an account after everything recorded at or before a moment: its versions are
-- dense and their times never fall, so halving finds the last one without an index on time.
CREATE FUNCTION ledger.version_as_of(p_book smallint, p_account bigint, p_at timestamptz)
RETURNS bigint LANGUAGE plpgsql STABLE AS $$
DECLARE
    low bigint := 0;
    high bigint;
    middle bigint;
    recorded_at timestamptz;
BEGIN
    SELECT version INTO high FROM ledger.posting
     WHERE book_id = p_book AND account_id = p_account ORDER BY version DESC LIMIT 1;
    high := coalesce(high, 0);
    WHILE low < high LOOP
        middle := (low + high + 1) / 2;
        SELECT e.recorded INTO recorded_at
          FROM ledger.posting p
          JOIN ledger.entry e ON e.book_id = p.book_id AND e.id = p.entry_id
         WHERE p.book_id = p_book AND p.account_id = p_account AND p.version = middle;
        IF recorded_at <= p_at THEN low := middle; ELSE high := middle - 1; END IF;
    END LOOP;
    RETURN low;
END $$;

GRANT USAGE ON SCHEMA ledger TO brokerd_daemon;
GRANT SELECT, INSERT ON ALL TABLES IN SCHEMA ledger TO brokerd_daemon;
GRANT USAGE ON ALL SEQUENCES IN SCHEMA ledger TO brokerd_daemon;
GRANT UPDATE (posted, version, changed) ON ledger.balance TO brokerd_daemon;
GRANT UPDATE (state, version) ON ledger.hold TO brokerd_daemon;
GRANT UPDATE (batch, seen), DELETE ON ledger.lane TO brokerd_daemon;
GRANT DELETE ON ledger.fact_work TO brokerd_daemon;
-- SELECT ... FOR UPDATE SKIP LOCKED on work rows asks for the right to update a column of them.
GRANT UPDATE (reader) ON ledger.fact_work TO brokerd_daemon;
