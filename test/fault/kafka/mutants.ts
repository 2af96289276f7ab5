// Mutants: the application without one of its protections, each as a patch of the source. The harness must find every one, or it proves nothing.
import type { Patch } from "../harness/patched-copy.ts"
import { type Finding, isCaught } from "../harness/command.ts"
import type { Plan, Step } from "./plan.ts"
import { execute, type Report } from "./execute.ts"
import type { Run } from "./run.ts"
import { backUp, cutLog, restoredDatabase } from "./scenarios.ts"

/** A mutant, and the run that reveals it. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly plan: Plan
  /** What it must be found by: at least one of these. */
  readonly found: ReadonlyArray<Finding>
  readonly after?: ReadonlyArray<(run: Run) => Promise<void>>
}

const fence = "src/postgres/store/commit-parts.ts"
const store = "src/postgres/store/store.ts"
const runner = "src/runner/runner.ts"
const handling = "src/runner/partition-processor.ts"
const nothing: Plan = { left: [], right: [] }
const left = (...steps: ReadonlyArray<Step>): Plan => ({ left: steps, right: [] })
const right = (...steps: ReadonlyArray<Step>): Plan => ({ left: [], right: steps })
const times = (count: number, step: Step): ReadonlyArray<Step> => Array.from({ length: count }, () => step)
const restart: Step = { kind: "killAtRandom", role: "projections", afterMs: 100 }
const join: Step = { kind: "joinAndLeave", signal: "SIGKILL" }

/** Replaces the fence of a single commit, and that of several together. */
const fences = (one: string, several: string): ReadonlyArray<Patch> => [
  {
    file: fence,
    find: "    and incarnation = ${parameter(claim.incarnation)}::uuid and commit_no = ${parameter(claim.commitNo)}::int8",
    replace: `    ${one}`
  },
  {
    file: fence,
    find: "        where p.incarnation = c.incarnation and p.commit_no = c.commit_no",
    replace: `        where ${several}`
  },
  {
    file: fence,
    find: "        and p.incarnation = c.incarnation and p.commit_no = c.commit_no",
    replace: `        and ${several}`
  }
]
const both = "${parameter(claim.incarnation)}::uuid is not null"
const number = "${parameter(claim.commitNo)}::int8"

const endTransaction =
  '    await this.coordinated("transaction", id, (one) => Wire.endTransaction(one, id, identity, true, requestMs))\n'
const offsetsLine = "    // one after another: a broker that has to check the transaction for two requests at once"

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "no fence: commits of a former claim have effect",
    patches: fences(`and ${both} and ${number} is not null`, "c.incarnation is not null"),
    plan: left({ kind: "zombie", nth: 1 }, { kind: "zombie", nth: 2 }),
    found: ["doubled"]
  },
  {
    name: "no incarnation: commits are fenced by their number only",
    patches: fences(`and ${both} and commit_no = ${number}`, "p.commit_no = c.commit_no"),
    plan: left({ kind: "overlap" }),
    found: ["hang"]
  },
  {
    name: "the position is committed before the rows",
    patches: [
      {
        file: "src/postgres/store/committer.ts",
        find: "    const { parameters, text } = this.builder.build(commits)\n",
        replace: `    for (const { changes, claim } of commits)
      await this.sql\`update millrace.progress set next_position = \${changes.position} where projection = \${claim.projection}
        and topic = \${claim.topic} and partition = \${claim.partition} and incarnation = \${claim.incarnation}\`
    globalThis.reached("position committed")
    const { parameters, text } = this.builder.build(commits)
`
      }
    ],
    plan: left({ kind: "killAtPoints", points: [{ name: "position committed", nth: 2 }] }),
    found: ["hang"]
  },
  {
    name: "no dedupe: every record counts as an event of its own",
    patches: [
      {
        file: handling,
        find: "seen!.test(tenant, id, time)) {",
        replace: "seen!.test(tenant, id, time) && process.pid < 0) {"
      }
    ],
    plan: nothing,
    found: ["doubled"]
  },
  {
    name: "seen ids are not loaded when a partition moves",
    patches: [
      {
        file: handling,
        find: "    this.seen.load(ranges, yield* this.store.seenIds(this.claim, ranges))\n",
        replace: "    this.seen.load(ranges, (yield* this.store.seenIds(this.claim, ranges)).slice(0, 0))\n"
      }
    ],
    plan: left(...times(3, join), restart),
    found: ["doubled"]
  },
  {
    name: "a commit whose reply was lost is repeated without checking whether it was executed",
    patches: [
      {
        file: store,
        find: "  if (row.commit_no === held.commitNo + 1) return { mode: row.mode, outboxSeq: row.outbox_seq }\n",
        replace:
          '  if (row.commit_no === held.commitNo + 1) {\n    Object.assign(held, { commitNo: held.commitNo + 1 })\n    return "absent"\n  }\n'
      }
    ],
    plan: left({ kind: "loseReplies", losses: ["executed", "running", "executed"] }),
    found: ["doubled"]
  },
  {
    name: "a claim reads from the end of the partition, and not from the committed position",
    patches: [
      {
        file: runner,
        find: "  const reader = yield* assignment.open(claim.position, readingOf(claim, partitions, size))\n",
        replace:
          "  const { end } = (yield* log.bounds(topic)).find((one) => one.partition === partition)!\n" +
          "  const reader = yield* assignment.open(claim.epoch === 1 ? claim.position : end, readingOf(claim, partitions, size))\n"
      }
    ],
    plan: left(restart, restart, join),
    found: ["lost", "hang"]
  },
  {
    name: "stream time is not loaded when a partition moves",
    patches: [
      { file: store, find: "    streamTime: row.stream_time ?? undefined,\n", replace: "    streamTime: undefined,\n" }
    ],
    plan: left(...times(3, join), restart, restart),
    found: ["wrong"]
  },
  {
    name: "an event counts as late one millisecond too late",
    patches: [
      { file: "src/model/window.ts", find: "window.graceMs <= streamTime", replace: "window.graceMs < streamTime" }
    ],
    plan: nothing,
    found: ["lost"]
  },
  {
    name: "input is read uncommitted: records of aborted transactions are processed",
    patches: [
      {
        file: "src/kafka/protocol/fetch-request.ts",
        find: "const readCommitted = 1\n",
        replace: "const readCommitted = 0\n"
      },
      { file: "src/kafka/protocol/offsets.ts", find: "const readCommitted = 1\n", replace: "const readCommitted = 0\n" }
    ],
    plan: nothing,
    found: ["wrong"]
  },
  {
    name: "records that a producer committed before an aborted transaction are skipped, too",
    patches: [
      {
        file: "src/kafka/protocol/batch-decode.ts",
        find: "seen < ahead.length && ahead[seen]!.firstOffset <= last; seen++",
        replace: "seen < ahead.length; seen++"
      }
    ],
    plan: nothing,
    found: ["lost"]
  },
  {
    name: "sequence numbers have gaps",
    patches: [
      {
        file: fence,
        find: "<> 'follower' then ${messages} else 0 end,",
        replace: "<> 'follower' then ${messages} + 1 else 0 end,"
      }
    ],
    plan: nothing,
    found: ["hang"]
  },
  {
    name: "the relay's offsets are committed after its records, in another transaction",
    patches: [
      {
        file: "src/kafka/protocol/transactional-producer.ts",
        find: offsetsLine,
        replace: `${endTransaction}    globalThis.reached("records committed")
    for (const group of offsets.keys())
      await this.whenFree(() =>
        this.coordinated("transaction", id, (broker) => Wire.addOffsets(broker, id, identity, group, requestMs))
      )
${offsetsLine}`
      }
    ],
    plan: right({ kind: "killRelayAtPoint", name: "records committed", nth: 2 }),
    found: ["doubled"]
  },
  {
    name: "the relay continues from the position in the database, and not from the one on Kafka",
    patches: [
      {
        file: "src/kafka/relay/position.ts",
        find: "  return { ...stream, seq: offset.offset, incarnation: offset.offset === 0 ? undefined : offset.metadata }\n",
        replace: "  return { ...stream, seq, incarnation }\n"
      }
    ],
    plan: right({ kind: "killRelayAtPoint", name: "transaction ended", nth: 2 }),
    found: ["doubled"]
  },
  {
    name: "every relay has a transactional id of its own",
    patches: [
      {
        file: "src/kafka/relay/relay.ts",
        find: "new KafkaLane(settings, grouping.ids[lane]!, ",
        replace: "new KafkaLane(settings, `${grouping.ids[lane]!}-${process.pid}`, "
      }
    ],
    plan: right({ kind: "relayZombie", name: "transaction begun" }),
    found: ["doubled"]
  },
  {
    name: "the relay does not check whether the outbox is the one that it relayed before",
    patches: [
      {
        file: "src/kafka/relay/position.ts",
        find: "  if (position.incarnation === undefined || position.incarnation === there) return undefined\n",
        replace: "  if (position.incarnation !== there || position.seq >= 0) return undefined\n"
      }
    ],
    plan: nothing,
    after: [backUp, restoredDatabase],
    found: ["hang"]
  },
  {
    name: "records that retention deleted are skipped silently",
    patches: [
      {
        file: runner,
        find: "  const reader = yield* assignment.open(claim.position, readingOf(claim, partitions, size))\n",
        replace:
          "  const { start } = (yield* log.bounds(topic)).find((one) => one.partition === partition)!\n" +
          "  const reader = yield* assignment.open(Math.max(claim.position, start), readingOf(claim, partitions, size))\n"
      }
    ],
    plan: nothing,
    after: [cutLog],
    found: ["hang"]
  }
]

/** Runs the harness against a mutant, and returns whether it was found. */
export const hunt = async (
  mutant: Mutant,
  seed: number,
  say: (line: string) => void = () => undefined
): Promise<{ readonly caught: boolean; readonly report: Report }> => {
  const { found, patches, plan, after = [] } = mutant
  const report = await execute(
    { seed, plan, events: 5_000, ahead: 2_500, mutant: patches, patienceMs: 40_000, say },
    after
  )
  return { caught: isCaught(found, report), report }
}
