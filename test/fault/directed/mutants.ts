// The protections of rebuilds, by the mutant that lacks each, and the directed test that must fail then. Random kills alone do not find all of them.
import type { Patch } from "../harness/patched-copy.ts"

/** A mutant. */
export interface Mutant {
  readonly name: string
  /** Undefined: the test removes the protection itself, and has a case for it whose title begins with `caught:`. */
  readonly patches?: ReadonlyArray<Patch>
  /** The test file, from `test/`. */
  readonly file: string
  /** A part of the test's title. */
  readonly title: string
}

const promotion = "integration/postgres/store/promotion.test.ts"
const lookups = "integration/runner/lookups.test.ts"
const gate = "integration/postgres/store/gate.test.ts"
/** One patch. */
export const patch = (file: string, find: string, replace: string): ReadonlyArray<Patch> => [{ file, find, replace }]

/** In the order in which the protocol of rebuilds names them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "the switch does not compare positions",
    file: promotion,
    title: "caught: the switch does not compare positions"
  },
  {
    name: "the stream's sequence is not handed over",
    file: promotion,
    title: "caught: the stream's sequence is not handed over"
  },
  {
    name: "a relay publishes on although the numbers of a stream began again, and its outbox is collected",
    patches: patch(
      "src/relay/outbox.ts",
      "incarnation === undefined || committed === undefined || committed >= seq\n",
      "true\n"
    ),
    file: "integration/postgres/relay/relay.test.ts",
    title: "halts where numbers of a stream begin again"
  },
  {
    name: "the old build keeps its incarnation, and followers are not held back",
    file: promotion,
    title: "caught: the old build keeps its incarnation"
  },
  { name: "followers are not held back", file: promotion, title: "caught: followers are not held back" },
  {
    name: "followers do not follow a frozen build",
    file: promotion,
    title: "caught: followers look where a live partition is"
  },
  {
    name: "the switch does not look whether the freeze is over",
    file: promotion,
    title: "caught: the switch does not look"
  },
  {
    name: "the commit that ends a freeze does not count its messages",
    file: promotion,
    title: "caught: the commit that ends a freeze"
  },
  { name: "followers write shared tables", file: promotion, title: "caught: followers write shared tables" },
  {
    name: "the journal has what lookups were read up to at the commit, and not when the batch began",
    patches: patch(
      "src/runner/batch-lookups.ts",
      "      const { generation, positions } = topic.pin\n      const only",
      "      const { generation, positions } = topic.table.pin\n      const only"
    ),
    file: lookups,
    title: "sees one state of its lookups"
  },
  {
    name: "a version of a lookup value is stored after batches can see it",
    patches: patch(
      "src/runner/lookup-tables.ts",
      "if (next > from) yield* this.keep(partition, from, next, read)",
      'if (next > from) yield* Effect.forkDetach(Effect.delay(this.keep(partition, from, next, read), "1 second"))'
    ),
    file: "unit/runner/lookup-tables.test.ts",
    title: "is not further than the versions in the store"
  },
  {
    name: "a batch has no pin of its lookups, and other partitions read on",
    patches: patch(
      "src/runner/batch-lookups.ts",
      "    for (const topic of this.topics) topic.pin = topic.table.pin\n",
      '    for (const topic of this.topics)\n      Object.defineProperty(topic, "pin", { configurable: true, get: () => topic.table.pin })\n'
    ),
    file: lookups,
    title: "sees one state of its lookups"
  },
  {
    name: "views are changed by DDL in the switch",
    patches: patch(
      "src/postgres/store/gate.ts",
      "      if (isGateOpen(facts, [live, next])) return plan\n",
      "      if (next > 0) return plan\n"
    ),
    file: gate,
    title: "a repeatable read transaction from before the switch"
  },
  {
    name: "the gate is closed before snapshots from before the switch end",
    patches: patch(
      "src/postgres/store/gate.ts",
      "      holders = yield* readSnapshotHolders(tx, projection)\n      if (holders.length > 0) return undefined\n      yield* changeViews(tx, projection, planViews(facts, { build }))",
      "      yield* changeViews(tx, projection, planViews(facts, { build }))"
    ),
    file: gate,
    title: "a repeatable read transaction from before the switch"
  },
  {
    name: "views select *",
    patches: patch(
      "src/postgres/store/view-plan.ts",
      'return `select ${list.join(", ")} from',
      "return `select * from"
    ),
    file: "integration/postgres/store/views.test.ts",
    title: "grants, a comment, options"
  },
  {
    name: "a discard is not replayed",
    patches: patch(
      "src/runner/retries.ts",
      "      const discards = isDiscard(record)\n",
      "      const discards = isDiscard(record) && false\n"
    ),
    file: "integration/dead-letter/discard.test.ts",
    title: "a replay processes what the first run processed after a discard"
  },
  {
    name: "a retired version is prepared again",
    patches: patch("src/postgres/store/prepare.ts", "declared.filter(({ retired }) => !retired)", "declared"),
    file: "integration/system/retire.test.ts",
    title: "a changed projection is built as the next version"
  },
  {
    name: "floating-point numbers are compared as texts",
    patches: patch("src/postgres/store/compare.ts", 'new Set(["real", "double precision"])', "new Set<string>()"),
    file: "integration/system/diff.test.ts",
    title: "only rounding is equal"
  },
  {
    name: "builds are compared without a common snapshot",
    patches: patch(
      "src/postgres/store/snapshot.ts",
      "; set transaction snapshot '${id.replaceAll(\"'\", \"''\")}'",
      ""
    ),
    file: "integration/system/diff.test.ts",
    title: "under traffic, no row differs"
  },
  {
    name: "a follower's messages are packed, and muted in SQL only",
    patches: patch(
      "src/runner/partition-processor.ts",
      "times: this.chain.messageTimes, isMuted }",
      "times: this.chain.messageTimes, isMuted: false }"
    ),
    file: "unit/runner/muted.test.ts",
    title: "packs no message"
  },
  {
    name: "a new partition gets positions in the builds that a process runs only",
    patches: patch(
      "src/postgres/store/builds.ts",
      " or exists (\n          select from millrace.progress g where (g.projection, g.version, g.topic) = (p.name, p.version, ${topic})))",
      ")"
    ),
    file: "integration/postgres/store/builds.test.ts",
    title: "all get a position for a new partition"
  },
  {
    name: "a runner that starts while its build is frozen cannot claim it",
    patches: patch(
      "src/postgres/store/store.ts",
      "and (mode <> 'frozen' or frozen_until is not null)",
      "and mode <> 'frozen'"
    ),
    file: promotion,
    title: "can be claimed, keeps frozen"
  },
  {
    name: "a build is dropped by cascade",
    patches: patch(
      "src/postgres/store/delete-build.ts",
      "tx.unsafe(`drop table ${table}`)",
      "tx.unsafe(`drop table ${table} cascade`)"
    ),
    file: "integration/system/retire.test.ts",
    title: "what is configured, runs"
  },
  {
    name: "a build is deleted with its rows locked before its tables",
    patches: patch("src/postgres/store/delete-build.ts", "  yield* lockBuild(tx, name, number)\n", ""),
    file: "integration/system/retire.test.ts",
    title: "a build is deleted while a process commits"
  }
]
