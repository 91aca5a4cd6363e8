-- Duties: what each person decided, so that nobody does both of two things that one person may not.

-- One decisive act, for each person it counts for and under each place where it binds them: its subject, and its case.
-- `no` runs without a gap in a person's acts at a place: an act names the number after those it was judged against, and
-- where another of the same person came first, its number is taken and it is not done.
CREATE TABLE gateway.act (
    person      text COLLATE "C" NOT NULL CHECK (person <> '' AND person !~ ':'),
    place       text COLLATE "C" NOT NULL CHECK (place <> ''),
    no          bigint      NOT NULL CHECK (no > 0),
    action      text COLLATE "C" NOT NULL,
    subject     text COLLATE "C" NOT NULL,
    case_id     text COLLATE "C" NOT NULL, -- the request or transaction; '' where there is none
    at          timestamptz NOT NULL,
    actor       text        NOT NULL,      -- whose credential did it: a delegate, a service on somebody's behalf
    role        text        NOT NULL,
    grant_id    text COLLATE "C" NOT NULL, -- by which grant; '' where none was needed
    approval    text COLLATE "C" NOT NULL, -- the question it decides or is allowed by; '' where there is none
    correlation text        NOT NULL,
    PRIMARY KEY (person, place, no),
    CHECK (place IN (subject, case_id))
);
CREATE INDEX act_place ON gateway.act (place, person, action, at);
CREATE INDEX act_at ON gateway.act (at);
CREATE TRIGGER act_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.act
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();

-- Roles that may not be in one hand, held all the same for a while because other people agreed. It speaks of
-- holding only: what one person may not do twice on one subject, nobody may.
CREATE TABLE gateway.duty_exception (
    grant_id text COLLATE "C" NOT NULL,
    conflict smallint    NOT NULL CHECK (conflict BETWEEN 1 AND 34),
    person   text COLLATE "C" NOT NULL,
    since    timestamptz NOT NULL,
    until    timestamptz NOT NULL CHECK (until > since),
    approval text COLLATE "C" NOT NULL CHECK (approval <> ''),
    reason   text        NOT NULL CHECK (reason <> ''),
    PRIMARY KEY (grant_id, conflict)
);
CREATE INDEX duty_exception_time ON gateway.duty_exception (until, since);
CREATE TRIGGER duty_exception_is_fact BEFORE UPDATE OR DELETE OR TRUNCATE ON gateway.duty_exception
    FOR EACH STATEMENT EXECUTE FUNCTION gateway.refuse_change();

GRANT SELECT, INSERT ON gateway.act, gateway.duty_exception TO brokerd_daemon;
