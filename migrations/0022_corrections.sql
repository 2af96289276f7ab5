-- Rows of windows whose published messages a promotion corrects, until the messages are in the outbox.
create table millrace.correction (
  -- of the promotion
  token uuid not null references millrace.promotion on delete cascade,
  model text not null,
  -- the columns of the row's key, as texts
  key text[] not null,
  primary key (token, model, key)
);
-- What was found to correct, when that was asked for: {"revision", "rows", "gone"}
alter table millrace.promotion add column corrections jsonb;
