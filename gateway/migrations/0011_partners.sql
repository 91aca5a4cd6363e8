-- Partners: whom a client came through, who stands above whom, on which terms. Dated and only added to: the
-- row of a moment is the last one at or before it. `inputs` is the version of the book's inputs it made.

CREATE TABLE gateway.partner (
    id            text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version       bigint      NOT NULL DEFAULT 1,
    reference_key text COLLATE "C" NOT NULL UNIQUE, -- caller:reference, the caller's own id of this partner
    caller        text        NOT NULL,
    reference     text        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('ib', 'master', 'affiliate')),
    state         text        NOT NULL CHECK (state IN ('active', 'suspended', 'terminated')),
    correlation   text        NOT NULL,
    created       timestamptz NOT NULL
);

-- Earning is by contract: (partner, brand, entity). Tree, terms, balances and statements belong to it.
CREATE TABLE gateway.contract (
    id          text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    key         text COLLATE "C" NOT NULL UNIQUE, -- partner:brand:entity
    partner_id  text COLLATE "C" NOT NULL,
    brand       text        NOT NULL,
    entity      text        NOT NULL,
    book        smallint    NOT NULL,
    currency    text        NOT NULL,
    code        text COLLATE "C" NOT NULL UNIQUE, -- what a client's registration names: the IB code
    inputs      bigint      NOT NULL,
    correlation text        NOT NULL,
    created     timestamptz NOT NULL
);
CREATE INDEX contract_partner ON gateway.contract (partner_id);
CREATE INDEX contract_book ON gateway.contract (book, id);
CREATE INDEX contract_inputs ON gateway.contract (book, inputs); -- what accrual has not read yet

-- `parent` '' is the top. The tree never leaves its book.
CREATE TABLE gateway.contract_edge (
    contract_id text COLLATE "C" NOT NULL,
    since       timestamptz NOT NULL,
    parent      text COLLATE "C" NOT NULL,
    book        smallint    NOT NULL,
    inputs      bigint      NOT NULL,
    PRIMARY KEY (contract_id, since)
);
CREATE INDEX contract_edge_inputs ON gateway.contract_edge (book, inputs);
CREATE INDEX contract_edge_parent ON gateway.contract_edge (parent) WHERE parent <> '';

CREATE TABLE gateway.contract_terms (
    contract_id text COLLATE "C" NOT NULL,
    since       timestamptz NOT NULL,
    plan        text        NOT NULL,
    book        smallint    NOT NULL,
    inputs      bigint      NOT NULL,
    PRIMARY KEY (contract_id, since)
);
CREATE INDEX contract_terms_inputs ON gateway.contract_terms (book, inputs);

-- Whom a client came through; `contract_id` '' says that nobody sent them. Made with the client, then locked.
CREATE TABLE gateway.attribution (
    client_id   text COLLATE "C" NOT NULL,
    since       timestamptz NOT NULL,
    contract_id text COLLATE "C" NOT NULL,
    book        smallint    NOT NULL,
    captured    jsonb       NOT NULL, -- what registration said: channel, campaign, landing page, as given
    inputs      bigint      NOT NULL, -- 0: made with the client, before any trading account
    actor       text        NOT NULL,
    PRIMARY KEY (client_id, since)
);
-- Clients of the time before partners came through nobody: each client has an answer.
INSERT INTO gateway.attribution (client_id, since, contract_id, book, captured, inputs, actor)
SELECT id, created, '', book, '{}', 0, 'migration' FROM gateway.client;
CREATE INDEX attribution_contract ON gateway.attribution (contract_id) WHERE contract_id <> '';
CREATE INDEX attribution_inputs ON gateway.attribution (book, inputs) WHERE inputs > 0;

-- A link to a partner's page works once and shortly; the session it opens lasts some hours. Digests only.
CREATE TABLE gateway.partner_session (
    digest     bytea       PRIMARY KEY,
    partner_id text COLLATE "C" NOT NULL,
    purpose    text        NOT NULL CHECK (purpose IN ('link', 'session')),
    expires    timestamptz NOT NULL,
    used       timestamptz,
    created    timestamptz NOT NULL
);
CREATE INDEX partner_session_expiry ON gateway.partner_session (expires);
CREATE INDEX partner_session_partner ON gateway.partner_session (partner_id);

CREATE TRIGGER contract_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.contract
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER contract_edge_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.contract_edge
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER contract_terms_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.contract_terms
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
CREATE TRIGGER attribution_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.attribution
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();

GRANT SELECT, INSERT ON gateway.partner, gateway.contract, gateway.contract_edge, gateway.contract_terms,
    gateway.attribution, gateway.partner_session TO brokerd_daemon;
GRANT UPDATE (version, state) ON gateway.partner TO brokerd_daemon;
GRANT UPDATE (used), DELETE ON gateway.partner_session TO brokerd_daemon;
