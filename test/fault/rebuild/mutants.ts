// Mutants: the application without one of the protections of promotions, each as a patch of the source, which the harness must find.
import type { Patch } from "../harness/patched-copy.ts"
import { type Finding, type Hunt, isCaught } from "../harness/command.ts"
import { execute } from "./execute.ts"

/** A mutant, and what it must be found by: at least one of these. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly found: ReadonlyArray<Finding>
  /** After how many promotions it is found. */
  readonly cycles: number
}
/** The newest text of the switch. */
const flip = "migrations/0025_changed_sources.sql"
const gate = "src/postgres/store/gate.ts"
const isDrained = `const isDrained = (positions: ReadonlyArray<FollowerPosition>) =>
  // where only the follower reads a topic, it need not stop
  positions.every(({ follower, live, own }) =>
    own === null ? follower !== null && follower === live : follower !== null && follower >= (live ?? 0)
  )
`

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "the sequence number of what was published is not handed over",
    patches: [{ file: flip, find: "set mode = 'live', outbox_seq = o.outbox_seq", replace: "set mode = 'live'" }],
    found: ["hang", "lost"],
    cycles: 1
  },
  {
    name: "the switch does not wait until the follower is where the live build is frozen",
    patches: [
      {
        file: "src/system/caught-up.ts",
        find: isDrained,
        replace:
          "const isDrained = (positions: ReadonlyArray<FollowerPosition>) => positions.some(({ follower, live }) => follower !== live)\n"
      },
      {
        file: flip,
        find: "\n      when n_position <> o_position then 'is at ' || n_position || ' of ' || o_position end as problem",
        replace: " end as problem"
      }
    ],
    found: ["lost", "doubled", "wrong", "hang"],
    cycles: 2
  },
  {
    name: "the gate is closed while snapshots from before the switch are read",
    patches: [
      {
        file: gate,
        find: "      holders = yield* readSnapshotHolders(tx, projection)\n      if (holders.length > 0) return undefined\n      yield* changeViews(tx, projection, planViews(facts, { build }))",
        replace: "      yield* changeViews(tx, projection, planViews(facts, { build }))"
      }
    ],
    found: ["wrong"],
    cycles: 3
  },
  {
    name: "the views are changed by the promotion without a gate",
    patches: [
      {
        file: gate,
        find: "      if (holders.length > 0) return undefined\n      yield* changeViews(tx, projection, plan)\n",
        replace:
          "      if (holders.length > 0) return undefined\n      if (facts === undefined)\n      yield* changeViews(tx, projection, plan)\n"
      },
      {
        file: gate,
        find: "      holders = yield* readSnapshotHolders(tx, projection)\n      if (holders.length > 0) return undefined\n      yield* changeViews(tx, projection, planViews(facts, { build }))",
        replace: "      yield* changeViews(tx, projection, planViews(facts, { build }))"
      }
    ],
    found: ["wrong"],
    cycles: 3
  }
]
/** Runs the harness against a mutant, without kills. */
export const hunt: Hunt<Mutant> = async ({ cycles, found, patches }, seed, say) => {
  const report = await execute({
    seed,
    plan: Array.from({ length: cycles }, () => undefined),
    events: 500,
    mutant: patches,
    patienceMs: 60_000,
    say
  })
  return { caught: isCaught(found, report), report }
}
