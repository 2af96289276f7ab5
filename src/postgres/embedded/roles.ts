// The roles of the embedded server: the superuser, which nobody can log in as, the application's role, and one that only reads.
import { createHmac } from "node:crypto"

/** The role of the application, and its database. It owns the database and is no superuser. */
export const name = "millrace"
/** The role that can read every table of the application and change nothing. */
export const reader = "millrace_reader"
/** The role that initdb creates. It has no password, so it cannot log in; PostgreSQL's single-user mode runs as this role. */
export const superuser = "millrace_superuser"

/** The reader's password, which follows from the application's. */
export const readerPassword = (password: string): string =>
  createHmac("sha256", password).update(reader).digest("hex").slice(0, 48)

/** What `rolesScript` makes PostgreSQL print when a database has its roles. */
export const confirmation = "millrace roles are ready"

/** The databases of users, as PostgreSQL lists them in the output of `rolesScript`. */
export const databasesIn = (output: string): ReadonlyArray<string> =>
  [...output.matchAll(/datname = "([^"\n]+)"/g)].map(([, database = ""]) => database)

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`

// Functions that everybody may call, but that change something outside of the transaction: other sessions, locks, large objects, the
// write-ahead log. The application may call them, the reader may not.
const withEffects =
  "^(lo_(creat|create|from_bytea|open|put|unlink|truncate|truncate64)|lowrite|pg_(try_)?advisory_.*|pg_(cancel|terminate)_backend|pg_notify|pg_logical_emit_message)$"

/**
 * The lines for PostgreSQL's single-user mode that give a database its roles. One statement does everything, so that it is done or not;
 * running it again is harmless. A cluster of an earlier version, whose superuser is the application's role, is changed: the superuser gets
 * another name and loses its password, and what it owns in this database goes to the application's role. With `createDatabase` the application's
 * database is created as well.
 */
export const rolesScript = (password: string, createDatabase: boolean): string =>
  [
    `do $roles$ ${oneLine(roles(password))} $roles$`,
    ...(createDatabase
      ? [`create database ${name} owner ${name}`, `revoke temporary on database ${name} from public`]
      : []),
    "select datname from pg_database where datallowconn and not datistemplate and datname <> 'postgres'",
    // single-user mode goes on after an error, and exits with 0; a setting that a failed transaction made is undone
    `select 'millrace roles are ' || current_setting('millrace.roles') as done from pg_database where datname = '${name}'`,
    ""
  ].join("\n")

const oneLine = (text: string) => text.replaceAll(/\s*\n\s*/g, " ").trim()

// The superuser of an earlier version has the name of the application's role. A session cannot rename its own role.
const rename = `
  select rolname into super from pg_authid where oid = 10;
  if super = '${name}' then
    create role millrace_rename superuser;
    set session authorization millrace_rename;
    alter role ${name} rename to ${superuser};
    set session authorization ${superuser};
    drop role millrace_rename;
    super := '${superuser}';
  end if;`

const create = (password: string) => `
  execute format('alter role %I password null', super);
  if not exists (select from pg_roles where rolname = '${name}') then create role ${name}; end if;
  if not exists (select from pg_roles where rolname = '${reader}') then create role ${reader}; end if;
  alter role ${name} login nosuperuser createdb nocreaterole noreplication nobypassrls password ${literal(password)};
  alter role ${reader} login nosuperuser nocreatedb nocreaterole noreplication nobypassrls password ${literal(readerPassword(password))};
  alter role ${reader} set default_transaction_read_only = on;
  grant pg_checkpoint to ${name};`

// `reassign owned` refuses to take anything from the role that initdb created.
const own = `
  for item in
    select datname from pg_database where datname = '${name}' or (datdba = 10 and not datistemplate and datname <> 'postgres')
  loop
    execute format('alter database %I owner to ${name}', item.datname);
    execute format('revoke temporary on database %I from public', item.datname);
  end loop;
  for item in
    select format('alter %s %s owner to ${name}', o.kind, i.identity) as statement
    from (
      select 1 as step, 'pg_namespace'::regclass as class, oid, 'schema' as kind from pg_namespace where nspowner = 10
      union all
      select case relkind when 'S' then 3 else 2 end, 'pg_class'::regclass, oid,
        case relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table' when 'c' then 'type' else 'table' end
      from pg_class c
      where relowner = 10 and relkind in ('r', 'p', 'v', 'm', 'f', 'c', 'S')
        and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i') and c.relkind = 'S')
      union all
      select 4, 'pg_type'::regclass, oid, case typtype when 'd' then 'domain' else 'type' end
      from pg_type where typowner = 10 and typtype in ('d', 'e', 'r')
      union all
      select 5, 'pg_proc'::regclass, oid, 'routine' from pg_proc where proowner = 10
      union all
      select 6, 'pg_statistic_ext'::regclass, oid, 'statistics' from pg_statistic_ext where stxowner = 10
      union all
      select 6, 'pg_collation'::regclass, oid, 'collation' from pg_collation where collowner = 10
      union all
      select 7, 'pg_largeobject'::regclass, oid, 'large object' from pg_largeobject_metadata where lomowner = 10
    ) o
    cross join lateral pg_identify_object(o.class, o.oid, 0) i
    where (o.oid >= 16384 or o.kind = 'large object') and i.schema is distinct from 'pg_toast' and i.identity not like 'pg\\_temp%' and i.identity not like 'pg\\_toast%'
      and not exists (select from pg_depend d where d.classid = o.class and d.objid = o.oid and d.deptype = 'e')
    order by o.step, o.oid
  loop
    execute item.statement;
  end loop;`

const allow = `
  for item in
    select p.oid::regprocedure as routine from pg_proc p
    where p.pronamespace = 'pg_catalog'::regnamespace and p.proname ~ ${literal(withEffects)} and has_function_privilege('public', p.oid, 'execute')
  loop
    execute format('revoke execute on function %s from public', item.routine);
    execute format('grant execute on function %s to ${name}', item.routine);
  end loop;
  for item in select nspname as schema from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema'
  loop
    execute format('grant usage on schema %I to ${reader}', item.schema);
    execute format('grant select on all tables in schema %I to ${reader}', item.schema);
    execute format('grant select on all sequences in schema %I to ${reader}', item.schema);
  end loop;
  alter default privileges for role ${name} grant usage on schemas to ${reader};
  alter default privileges for role ${name} grant select on tables to ${reader};
  alter default privileges for role ${name} grant select on sequences to ${reader};`

// Names of pg_catalog come first in the search path, but an operator or a function of the application could fit better.
const roles = (password: string) => `
declare
  super name;
  item record;
begin
  perform pg_catalog.set_config('search_path'::text, 'pg_catalog, pg_temp'::text, true);
  ${rename}${create(password)}${own}${allow}
  perform set_config('millrace.roles', 'ready', false);
end`
