-- The deals of trading platforms as they were landed, and what partners earn by them. Only added to.

-- How far a platform's deals are landed; `cursor` is the bridge's own and opaque here. `feed` numbers
-- the server in all that follows. An owner's epoch is in each commit: an older owner's fails.
CREATE TABLE ledger.feed_cursor (
    feed   smallint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    server text COLLATE "C" NOT NULL UNIQUE,
    epoch  bigint NOT NULL DEFAULT 0,
    cursor jsonb NOT NULL DEFAULT '{}',
    moved  timestamptz NOT NULL DEFAULT now()
);

-- The last number given to a landed deal of a book: numbers are dense, in the order of landing.
CREATE TABLE ledger.feed_book (
    book_id smallint NOT NULL,
    feed    smallint NOT NULL,
    landed  bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (book_id, feed)
);

-- `phase`: 0 deal (MT5), 1 open, 2 close (MT4). `version` 1 is the deal as first seen; an edit that
-- supersedes it is the next. Volumes are 1e-8 lots, money is minor units of `digits` decimals, `at` and
-- `opened` are UTC, `server_ms` is the server's wall clock read as if it were UTC.
CREATE TABLE ledger.deal (
    book_id    smallint NOT NULL,
    feed       smallint NOT NULL,
    no         bigint NOT NULL,
    ticket     bigint NOT NULL,
    phase      smallint NOT NULL,
    version    smallint NOT NULL CHECK (version > 0),
    login      bigint NOT NULL,
    position   bigint NOT NULL,
    action     smallint NOT NULL,
    entry      smallint NOT NULL,
    reason     smallint NOT NULL,
    symbol     text COLLATE "C" NOT NULL,
    volume     bigint NOT NULL CHECK (volume >= 0),
    closed     bigint NOT NULL CHECK (closed >= 0),
    price      numeric NOT NULL,
    digits     smallint NOT NULL,
    profit     bigint NOT NULL,
    commission bigint NOT NULL,
    swap       bigint NOT NULL,
    fee        bigint NOT NULL,
    flags      integer NOT NULL,
    comment    text NOT NULL,
    at         timestamptz NOT NULL,
    server_ms  bigint NOT NULL,
    opened     timestamptz,
    landed     timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (book_id, feed, no),
    UNIQUE (book_id, feed, ticket, phase, version)
);
-- What opened a position, for deals that close it.
CREATE INDEX deal_opening ON ledger.deal (book_id, feed, login, position) WHERE entry IN (0, 2) AND position > 0;

-- What a planner is to believe of deals before it has counted any: a few books, each ticket rare. By its
-- own guess all columns are alike, and looking a ticket up by walking through its whole book looks as good.
-- The statistics outlive the rows, and the first real ones take their place.
INSERT INTO ledger.deal (book_id, feed, no, ticket, phase, version, login, position, action, entry, reason, symbol,
    volume, closed, price, digits, profit, commission, swap, fee, flags, comment, at, server_ms)
SELECT n % 2 + 1, 1, n, n, 0, 1, n % 1000, n, 0, n % 2, 0, 'EURUSD', 1, n % 2, 1, 2, n % 100, 0, 0, 0, 0, '',
       to_timestamp(n), n
  FROM generate_series(1, 4000) AS n;
ANALYZE ledger.deal;
TRUNCATE ledger.deal;

-- Deals that cannot be booked as they are: one row for each content seen, until its cause is gone.
CREATE TABLE ledger.deal_parked (
    feed    smallint NOT NULL,
    ticket  bigint NOT NULL,
    phase   smallint NOT NULL,
    content bytea NOT NULL,
    reason  text NOT NULL,
    subject text NOT NULL,
    body    jsonb NOT NULL,
    parked  timestamptz NOT NULL DEFAULT clock_timestamp(),
    landed  timestamptz,
    PRIMARY KEY (feed, ticket, phase, content)
);
CREATE INDEX deal_parked_waiting ON ledger.deal_parked (feed, reason, subject) WHERE landed IS NULL;

-- The version of all that accrual reads beside deals: attribution, edges, terms, plans. A command that
-- changes one of them moves it in the same transaction; accrual holds it in share while it commits.
CREATE TABLE ledger.inputs (
    book_id smallint PRIMARY KEY,
    version bigint NOT NULL DEFAULT 0
);

-- Plans as they were published: immutable, each content once. `since` is when it took effect.
CREATE TABLE ledger.plan_version (
    id    integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    plan  text COLLATE "C" NOT NULL,
    hash  text COLLATE "C" NOT NULL,
    body  jsonb NOT NULL,
    since timestamptz NOT NULL,
    UNIQUE (plan, hash, since)
);

-- What partners earn, one row for each (deal, contract, component): the subsidiary ledger under the
-- postings of their accrued accounts. `account_id` is such an account, so it tells contract and
-- currency. `deal_no` caused the line, `concerned_no` is the deal it pays for; 0: none (rounding).
-- One b-tree only: lines of a contract are found through `contract_batch`.
CREATE TABLE ledger.rebate_line (
    book_id      smallint NOT NULL,
    no           bigint NOT NULL,
    batch        bigint NOT NULL,
    feed         smallint NOT NULL,
    deal_no      bigint NOT NULL,
    concerned_no bigint NOT NULL,
    account_id   bigint NOT NULL,
    component    smallint NOT NULL,
    kind         smallint NOT NULL,
    level        smallint NOT NULL,
    reason       smallint NOT NULL,
    plan         integer NOT NULL,
    amount       bigint NOT NULL,
    UNIQUE (book_id, feed, deal_no, concerned_no, account_id, component, kind)
);

-- One row a batch of accrual: which deals, which lines (none: last_line = first_line - 1), which entry
-- (none where nothing was paid), under which inputs. `deals` and `lines` are hashes of what was read and
-- of what was written; `content` is one of both, of this row, of what the batch left over and of the
-- batch before it: a chain, whose links the references of entries carry (`rebates/encode.py`).
-- All its deals are of the UTC `day`, and of one settlement period of the book: the one that ends on the
-- day `settles` at `cut_off` UTC ('00:00': with the day), as the rulebook said when it was computed.
CREATE TABLE ledger.accrual_batch (
    book_id    smallint NOT NULL,
    batch      bigint NOT NULL,
    feed       smallint NOT NULL,
    first_deal bigint NOT NULL,
    last_deal  bigint NOT NULL,
    first_line bigint NOT NULL,
    last_line  bigint NOT NULL,
    day        date NOT NULL,
    settles    date NOT NULL,
    cut_off    time NOT NULL,
    inputs     bigint NOT NULL,
    epoch      bigint NOT NULL,
    entry_id   bigint,
    deals      bytea NOT NULL,
    lines      bytea NOT NULL,
    content    bytea NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (book_id, batch),
    UNIQUE (book_id, feed, first_deal),
    CHECK (last_deal >= first_deal AND last_line >= first_line - 1),
    CONSTRAINT accrual_batch_settles CHECK (settles = day OR (settles = day + 1 AND cut_off > '00:00'))
);
CREATE INDEX accrual_batch_line ON ledger.accrual_batch (book_id, first_line);
-- Where a day begins among the batches: a page reads the running day only, however old the book is.
CREATE INDEX accrual_batch_day ON ledger.accrual_batch (book_id, day, batch);
CREATE INDEX accrual_batch_at ON ledger.accrual_batch (book_id, at, batch); -- the last one of a moment

-- What a batch did to one contract: the way from a contract to its lines. `earned` and `lines_ever` are
-- all that it came to with this batch, so that neither now nor a moment of the past adds a history up.
CREATE TABLE ledger.contract_batch (
    book_id    smallint NOT NULL,
    account_id bigint NOT NULL,
    batch      bigint NOT NULL,
    day        date NOT NULL,
    net        bigint NOT NULL,
    lines      integer NOT NULL CHECK (lines > 0),
    last_line  bigint NOT NULL,
    earned     bigint NOT NULL,
    lines_ever bigint NOT NULL,
    PRIMARY KEY (book_id, account_id, batch)
);

-- Running sums of the above by day; a cache that `verify` computes again.
CREATE TABLE ledger.contract_day (
    book_id    smallint NOT NULL,
    account_id bigint NOT NULL,
    day        date NOT NULL,
    net        bigint NOT NULL,
    PRIMARY KEY (book_id, account_id, day)
) WITH (fillfactor = 70);

-- What lines of a period (the month of the settlement day) left over below the minor unit, in 1e-16 minor units, and how much of it
-- rounding lines have paid.
CREATE TABLE ledger.remainder (
    book_id    smallint NOT NULL,
    account_id bigint NOT NULL,
    component  smallint NOT NULL,
    period     date NOT NULL,
    exact      numeric(60, 0) NOT NULL,
    paid       bigint NOT NULL,
    PRIMARY KEY (book_id, account_id, component, period)
) WITH (fillfactor = 70);

-- What each batch made of a remainder: the sum after it. The newest is `remainder`'s, the one before a
-- batch is what it began with.
CREATE TABLE ledger.remainder_step (
    book_id    smallint NOT NULL,
    account_id bigint NOT NULL,
    component  smallint NOT NULL,
    period     date NOT NULL,
    batch      bigint NOT NULL,
    exact      numeric(60, 0) NOT NULL,
    PRIMARY KEY (book_id, account_id, component, period, batch)
);
-- Rows stand in the order of batches: whoever proves them reads them so.
CREATE INDEX remainder_step_batch ON ledger.remainder_step USING brin (batch);

-- Where a book's accrual stands: its owner's epoch, the last batch and the last line.
CREATE TABLE ledger.accrual_head (
    book_id smallint PRIMARY KEY,
    epoch   bigint NOT NULL DEFAULT 0,
    batch   bigint NOT NULL DEFAULT 0,
    line    bigint NOT NULL DEFAULT 0
);
CREATE TABLE ledger.accrual_position (
    book_id smallint NOT NULL,
    feed    smallint NOT NULL,
    reached bigint NOT NULL DEFAULT 0,
    PRIMARY KEY (book_id, feed)
);

CREATE TRIGGER deal_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.deal
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER plan_version_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.plan_version
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER rebate_line_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.rebate_line
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER accrual_batch_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.accrual_batch
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER contract_batch_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.contract_batch
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();
CREATE TRIGGER remainder_step_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.remainder_step
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

GRANT SELECT, INSERT ON ledger.feed_cursor, ledger.feed_book, ledger.deal, ledger.deal_parked, ledger.inputs,
    ledger.plan_version, ledger.rebate_line, ledger.accrual_batch, ledger.contract_batch, ledger.contract_day,
    ledger.remainder, ledger.remainder_step, ledger.accrual_head, ledger.accrual_position TO brokerd_daemon;
GRANT UPDATE (epoch, cursor, moved) ON ledger.feed_cursor TO brokerd_daemon;
GRANT UPDATE (landed) ON ledger.feed_book TO brokerd_daemon;
GRANT UPDATE (reason, subject, landed) ON ledger.deal_parked TO brokerd_daemon;
GRANT UPDATE (version) ON ledger.inputs TO brokerd_daemon;
GRANT UPDATE (net) ON ledger.contract_day TO brokerd_daemon;
GRANT UPDATE (exact, paid) ON ledger.remainder TO brokerd_daemon;
GRANT UPDATE (epoch, batch, line) ON ledger.accrual_head TO brokerd_daemon;
GRANT UPDATE (reached) ON ledger.accrual_position TO brokerd_daemon;
