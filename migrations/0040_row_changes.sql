-- Changes of read models for those who follow them: while a table is followed, triggers note every change of a row, with the transaction that made it.

-- A table that is followed, or was. A journal has every change since it began, and is never continued after a gap: then there is a new one.
create table millrace.row_journal (
  journal_id bigint generated always as identity primary key,
  -- the view in the schema public
  view text not null,
  -- the projection and the build whose table it is; null: the table is shared
  projection text,
  build integer,
  relation oid not null,
  -- the server and its timeline: transaction ids of another one are others
  era text not null,
  -- the table was truncated
  ended boolean not null default false,
  -- the changes that this snapshot sees were deleted; null: none were
  pruned pg_snapshot,
  began_at timestamptz not null default clock_timestamp()
);
create index row_journal_view on millrace.row_journal (view);

-- Until when a process follows a journal. Writers note changes until then.
create table millrace.row_follower (
  journal_id bigint not null references millrace.row_journal on delete cascade,
  process uuid not null,
  until timestamptz not null,
  primary key (journal_id, process)
) with (fillfactor = 50);

-- Snapshots by which changes are deleted, with the last id until then.
create table millrace.row_mark (
  journal_id bigint not null references millrace.row_journal on delete cascade,
  at timestamptz not null default clock_timestamp(),
  seen pg_snapshot not null default pg_current_snapshot(),
  last_id bigint not null,
  primary key (journal_id, at)
);

-- A row that was inserted (after), deleted (before) or changed (both). Changes of one row are in the order of their ids, for each was made under the
-- row's lock. Changes of different transactions may become visible in another order: readers compare snapshots, not ids.
create table millrace.row_change (
  id bigint generated always as identity primary key,
  journal_id bigint not null,
  xid xid8 not null default pg_current_xact_id(),
  before json,
  after json
);
create index row_change_xid on millrace.row_change (journal_id, xid);

-- The server and its timeline; empty if the role may not read that.
create function millrace.journal_era() returns text language plpgsql stable as $$
begin
  return (select system_identifier from pg_control_system()) || '/' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8);
exception when insufficient_privilege then
  return '';
end
$$;

-- Notes the changes of a statement. Arguments: the journal, and the columns of the primary key. Without a follower, nothing: compared is the time
-- at which the transaction began, so that none that began before the last follower's time was over leaves anything out.
create function millrace.note_row_changes() returns trigger language plpgsql security definer
set search_path = pg_catalog, pg_temp set timezone = 'UTC' set datestyle = 'ISO' set extra_float_digits = 1 as $$
declare
  journal bigint := tg_argv[0];
begin
  if not exists (select from millrace.row_follower f where f.journal_id = journal and f.until > now()) then
    return null;
  end if;
  -- the aliases are no names of users' columns
  if tg_op = 'INSERT' then
    insert into millrace.row_change (journal_id, after) select journal, row_to_json(_new) from new_rows _new;
  elsif tg_op = 'DELETE' then
    insert into millrace.row_change (journal_id, before) select journal, row_to_json(_old) from old_rows _old;
  elsif tg_op = 'UPDATE' then
    execute format('insert into millrace.row_change (journal_id, before, after) select $1, row_to_json(_old), row_to_json(_new)
      from old_rows _old full join new_rows _new using (%s) where (_old *<> _new) is not false',
      (select string_agg(quote_ident(name), ', ') from unnest(tg_argv[1:]) name)) using journal;
  else
    update millrace.row_journal j set ended = true where j.journal_id = journal;
  end if;
  return null;
end
$$;

-- Prolongs the time for which a process follows a journal. False if nobody follows it any more, or for too short a time: then it may have a gap.
create function millrace.follow_row_journal(journal bigint, by uuid, lasting interval) returns boolean language plpgsql as $$
begin
  insert into millrace.row_follower as f (journal_id, process, until)
    select journal, by, clock_timestamp() + lasting
    where exists (select from millrace.row_follower o where o.journal_id = journal and o.until > clock_timestamp() + interval '1 minute')
    on conflict (journal_id, process) do update set until = excluded.until;
  return found;
end
$$;

-- Sets a mark, and deletes the changes before the last mark that is old enough, or has `most` changes behind it.
create function millrace.prune_row_journal(journal bigint, keep interval, most bigint) returns void language plpgsql as $$
declare
  last bigint := coalesce(pg_sequence_last_value('millrace.row_change_id_seq'), 0);
  mark record;
begin
  if not pg_try_advisory_xact_lock(721651302, (journal % 2147483647)::int4) then return; end if;
  insert into millrace.row_mark (journal_id, last_id) values (journal, last);
  select * into mark from millrace.row_mark m
    where m.journal_id = journal and (m.at < clock_timestamp() - keep or m.last_id < last - most) order by m.at desc limit 1;
  if not found then return; end if;
  delete from millrace.row_change c
    where c.journal_id = journal and c.xid < pg_snapshot_xmax(mark.seen) and pg_visible_in_snapshot(c.xid, mark.seen);
  update millrace.row_journal j set pruned = mark.seen where j.journal_id = journal;
  delete from millrace.row_mark m where m.journal_id = journal and m.at <= mark.at;
end
$$;

-- What has become of a journal for a reader that has seen `seen`: null if it can go on; otherwise `view_replaced`, or `changes_expired`.
create function millrace.row_journal_end(journal bigint, seen pg_snapshot) returns text language sql stable as $$
  select case
    when j.journal_id is null or j.era <> millrace.journal_era() then 'changes_expired'
    when j.ended or not exists (select from pg_class c where c.oid = j.relation) then 'view_replaced'
    when j.projection is not null and (
      not exists (select from millrace.live l where (l.projection, l.version) = (j.projection, j.build))
      -- a database that was restored elsewhere has ids that this server will reach later
      or exists (select from millrace.promotion p where p.projection = j.projection
        and pg_visible_in_snapshot(p.xid, pg_current_snapshot()) and not pg_visible_in_snapshot(p.xid, seen))) then 'view_replaced'
    -- writers may have left changes out
    when not exists (select from millrace.row_follower f where f.journal_id = j.journal_id and f.until > clock_timestamp()) then 'changes_expired'
    -- a change that was deleted, and that the reader has not seen
    when pg_snapshot_xmax(j.pruned) > pg_snapshot_xmax(seen)
      or exists (select from pg_snapshot_xip(seen) x where pg_visible_in_snapshot(x, j.pruned)) then 'changes_expired' end
  from (select) one left join millrace.row_journal j on j.journal_id = journal
$$;
