// The public views over the tables of a projection's builds, as the catalog has them, and the statements that change them.
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { query, type Session, type Sql } from "../client/client.ts"
import { quote } from "../client/columns.ts"
import { sharedSchema, type StoredRelation } from "./ddl.ts"
import { planViews, refusalText, type Shown, type ViewFacts, type ViewPlan, type ViewRefusal } from "./view-plan.ts"

/** The views of a projection cannot be changed as asked: something depends on what would be removed, or a name is taken. */
export class ViewsRefused extends Data.TaggedError("ViewsRefused")<{
  readonly projection: string
  readonly refusals: ReadonlyArray<ViewRefusal>
}> {
  override get message() {
    return refusalText(this.refusals)
  }
}

/**
 * The facts in one JSON object. $1: the projection. A view belongs to it if it has the name of a table in the schema of one of its builds, and reads
 * that table: PostgreSQL records this in pg_depend, whatever the view's text is. Unlogged tables are the scratch of a rebuild.
 */
const factsSql = `
with recursive build as (
  select oid as schema, substr(nspname, length($1) + 3)::int as number from pg_namespace
  where starts_with(nspname, $1 || '_v') and substr(nspname, length($1) + 3) ~ '^[0-9]{1,6}$'
),
tables as (
  select c.oid, c.relname as name, b.number as build from pg_class c join build b on b.schema = c.relnamespace
  where c.relkind = 'r' and c.relpersistence = 'p'
),
reads as (
  select r.ev_class as view, d.refobjid as relation from pg_rewrite r
  join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
  where r.rulename = '_RETURN' and d.refobjid <> r.ev_class
),
view as (
  select c.oid, c.relname as name, c.reltype, c.relowner, c.relacl, c.reloptions, array_agg(distinct t.build) as builds
  from pg_class c join reads on reads.view = c.oid join tables t on t.oid = reads.relation and t.name = c.relname
  where c.relnamespace = 'public'::regnamespace and c.relkind = 'v' group by c.oid
),
above as (
  select view.oid as root, reads.view as relation from view join reads on reads.relation = view.oid
  union select above.root, reads.view from above join reads on reads.relation = above.relation
),
columns as (
  select a.attrelid as relation, jsonb_agg(jsonb_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod)) order by a.attnum) as list
  from pg_attribute a where a.attnum > 0 and not a.attisdropped and a.attrelid in (select oid from tables union all select oid from view)
  group by 1
),
dependent as (
  select view.oid as view, d.classid, d.objid, r.ev_class, r.rulename from view
  join pg_type t on t.oid = view.reltype
  join pg_depend d on (d.refclassid = 'pg_class'::regclass and d.refobjid = view.oid)
    or (d.refclassid = 'pg_type'::regclass and d.refobjid in (t.oid, t.typarray))
  left join pg_rewrite r on d.classid = 'pg_rewrite'::regclass and r.oid = d.objid
  where d.deptype <> 'i' and not (r.ev_class is not distinct from view.oid and r.rulename = '_RETURN')
),
dependents as (
  select view, jsonb_agg(distinct case
    when rulename = '_RETURN' then (select case relkind when 'm' then 'materialized view ' else 'view ' end from pg_class where oid = ev_class)
      || ev_class::regclass
    else pg_describe_object(classid, objid, 0) end) as list
  from dependent group by 1
),
granted as (
  select view.oid as view from view cross join aclexplode(view.relacl) a where a.grantee <> view.relowner
    and (a.grantee, a.privilege_type) not in (
      select e.grantee, e.privilege_type from pg_default_acl d cross join aclexplode(d.defaclacl) e
      where d.defaclrole = view.relowner and d.defaclobjtype = 'r' and d.defaclnamespace in (0, 'public'::regnamespace))
  union select attrelid from pg_attribute where attacl is not null and attrelid in (select oid from view)
),
commented as (
  select distinct objoid as view from pg_description where classoid = 'pg_class'::regclass and objoid in (select oid from view)
)
select jsonb_build_object(
  'projection', $1,
  'tables', (select coalesce(jsonb_agg(jsonb_build_object('build', t.build, 'name', t.name, 'columns', c.list) order by t.name, t.build), '[]')
    from tables t join columns c on c.relation = t.oid),
  'views', (select coalesce(jsonb_agg(jsonb_build_object(
      'name', v.name, 'columns', c.list, 'builds', v.builds, 'options', coalesce(to_jsonb(v.reloptions), '[]'),
      'isGated', exists (select from reads where reads.view = v.oid and reads.relation = to_regclass('millrace.live')),
      'dependents', coalesce((select list from dependents d where d.view = v.oid), '[]'),
      'attached', (select coalesce(jsonb_agg(what), '[]') from (
        select 'grants' as what from granted where view = v.oid union select 'a comment' from commented where view = v.oid) x),
      'materialized', (select coalesce(jsonb_agg(distinct m.oid::regclass::text), '[]') from above a join pg_class m on m.oid = a.relation
        where a.root = v.oid and m.relkind = 'm')) order by v.name), '[]')
    from view v join columns c on c.relation = v.oid),
  'taken', (select coalesce(jsonb_agg(distinct c.relname), '[]') from pg_class c
    where c.relnamespace = 'public'::regnamespace and c.relname in (select name from tables) and c.oid not in (select oid from view))
) as facts`

/** Reads what the database has of a projection's views and tables. */
export const readViewFacts = (sql: Sql | Session, projection: string) =>
  Effect.map(
    query("read the views of a projection", () =>
      sql.unsafe<Array<{ readonly facts: ViewFacts }>>(factsSql, [projection])
    ),
    ([row]) => row!.facts
  )

/** Executes a plan in the transaction of the caller. Fails with `ViewsRefused`, and changes nothing, if it has refusals. */
export const executePlan = Effect.fnUntraced(function* (
  tx: Session,
  projection: string,
  { refusals, statements }: ViewPlan
) {
  if (refusals.length > 0) return yield* new ViewsRefused({ projection, refusals })
  if (statements.length > 0) yield* query(`change the views of ${projection}`, () => tx.unsafe(statements.join(";\n")))
})

/** Makes the views of a projection show a build, or through a gate two, in the transaction of the caller. */
export const showBuild = Effect.fnUntraced(function* (tx: Session, projection: string, shown: Shown) {
  const plan = planViews(yield* readViewFacts(tx, projection), shown)
  yield* executePlan(tx, projection, plan)
  return plan
})

/** Creates the view of a shared read model if it does not exist. */
export const createSharedView = (tx: Session, { columns, name, qualifiedName }: StoredRelation) =>
  query(`create the view ${name}`, async () => {
    const [found] = await tx`select from pg_class where relnamespace = 'public'::regnamespace and relname = ${name}`
    const list = columns.map((column) => quote(column.name)).join(", ")
    if (found === undefined)
      await tx.unsafe(`create view public.${quote(name)} as select ${list} from ${qualifiedName}`)
  })

/** Adds the columns of a shared table that its view does not have, behind those that it has. */
export const extendSharedView = (tx: Session, { name, qualifiedName }: StoredRelation) =>
  query(`add columns to the view ${name}`, async () => {
    const [row] = await tx.unsafe<Array<{ readonly columns: ReadonlyArray<string> }>>(
      `select jsonb_agg(t.attname order by v.attnum, t.attnum) as columns from pg_attribute t
      left join pg_attribute v on v.attrelid = to_regclass($1) and v.attname = t.attname and v.attnum > 0
      where t.attrelid = to_regclass($2) and t.attnum > 0 and not t.attisdropped`,
      [`public.${quote(name)}`, qualifiedName]
    )
    const list = row!.columns.map(quote).join(", ")
    await tx.unsafe(`create or replace view public.${quote(name)} as select ${list} from ${qualifiedName}`)
  })

/** What has a name in the schema `public`. */
interface PublicName {
  readonly isView: boolean
  /** The schemas of the tables that the view reads and that have its name. */
  readonly schemas: ReadonlyArray<string>
}
const readPublicName = (tx: Session, name: string) =>
  Effect.map(
    query(
      "look for the view",
      () => tx<Array<{ readonly found: PublicName }>>`select jsonb_build_object('isView', c.relkind = 'v', 'schemas', (
          select coalesce(jsonb_agg(distinct n.nspname), '[]') from pg_rewrite r
          join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = r.oid and d.refclassid = 'pg_class'::regclass
          join pg_class t on t.oid = d.refobjid and t.relname = c.relname and t.relkind = 'r'
          join pg_namespace n on n.oid = t.relnamespace
          where r.ev_class = c.oid)) as found
        from pg_class c where c.relnamespace = 'public'::regnamespace and c.relname = ${name}`
    ),
    ([row]) => row?.found
  )

/** Why a read model of a projection cannot have its public view: its name is taken. Undefined if it can have it. */
export const takenReason = Effect.fnUntraced(function* (
  tx: Session,
  projection: string,
  { name, shared }: StoredRelation
) {
  const found = yield* readPublicName(tx, name)
  if (found === undefined) return undefined
  const ownerOf = (schema: string) => /^(\w+)_v\d+$/.exec(schema)?.[1]
  const isOurs = (schema: string) => (shared ? schema === sharedSchema : ownerOf(schema) === projection)
  if (found.isView && found.schemas.some(isOurs)) return undefined
  const owner = found.schemas.map(ownerOf).find((one) => one !== undefined)
  const orRetire =
    owner === undefined
      ? ""
      : `, or retire projection ${owner} if the configuration no longer has it: millrace retire ${owner} --drop`
  return `public.${name} already exists and is not a view of this projection; give the read model another name${orRetire}`
})
