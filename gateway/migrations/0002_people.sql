-- People: the clients of a broker and the state that says what each may do. No personal data is here.

CREATE TABLE gateway.client (
    id            text COLLATE "C" PRIMARY KEY CHECK (length(id) = 20),
    version       bigint      NOT NULL,
    reference_key text COLLATE "C" NOT NULL UNIQUE, -- caller:reference, the caller's own id of this client
    caller        text        NOT NULL,
    reference     text        NOT NULL,
    brand         text        NOT NULL,
    entity        text        NOT NULL,
    book          integer     NOT NULL,
    country       text        NOT NULL,
    currency      text        NOT NULL,
    client_type   text        NOT NULL,
    risk_band     text        NOT NULL,
    state         text        NOT NULL CHECK (state IN (
        'new_lead', 'contacted', 'registered', 'kyc_pending', 'kyc_under_review', 'approved',
        'deposit_enabled', 'trading_enabled', 'restricted', 'archived')),
    blocks        text[]      NOT NULL DEFAULT '{}',
    came_from     text        NOT NULL DEFAULT '', -- the state a restriction interrupted
    correlation   text        NOT NULL,
    created       timestamptz NOT NULL,
    updated       timestamptz NOT NULL,
    CHECK (state = 'restricted' OR cardinality(blocks) = 0)
);
CREATE INDEX client_entity ON gateway.client (entity, id);
GRANT SELECT, INSERT, UPDATE (version, state, blocks, came_from, updated) ON gateway.client TO brokerd_daemon;

CREATE TABLE gateway.client_event (
    id         bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    object_id  text COLLATE "C" NOT NULL,
    version    bigint      NOT NULL,
    from_state text        NOT NULL,
    to_state   text        NOT NULL,
    event      text        NOT NULL,
    cause      jsonb       NOT NULL,
    actor      text        NOT NULL,
    at         timestamptz NOT NULL
);
CREATE INDEX client_event_object ON gateway.client_event (object_id);
GRANT SELECT, INSERT ON gateway.client_event TO brokerd_daemon;

CREATE TRIGGER client_event_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.client_event
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();
