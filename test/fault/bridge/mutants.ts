// Mutants: the bridge without one of its protections, each as a patch of the source. The harness must find every one of them, or it proves nothing.
import type { Finding } from "../harness/command.ts"
import type { Patch } from "../harness/patched-copy.ts"
import type { Step } from "./plan.ts"

/** A mutant, and the faults that reveal it. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly steps: ReadonlyArray<Step>
  /** What it must be found by: at least one of these. */
  readonly found: ReadonlyArray<Finding>
}

const native = { transport: "native" } as const
const kill = (point: string, times: number, nth = 2): ReadonlyArray<Step> =>
  Array.from({ length: times }, (): Step => ({ kind: "kill", point, nth, ...native }))
const zombie = (point: string, nth = 2): Step => ({ kind: "zombie", point, nth, ...native })
const forget: Step = { kind: "forget", ...native }

const inward = "src/bridge/to-kafka.ts"
const out = "src/bridge/to-pulsar.ts"
const producers = "src/bridge/pulsar-producers.ts"
const search = "src/bridge/rejection-search.ts"

/**
 * Not a protection, but a circumstance: a process learns 3 s late that its group has moved on. If it learned that at once it would seldom still
 * write.
 */
const late = ["lose", "stopAll"].map((what): Patch => ({
  file: "src/kafka/log/group.ts",
  find: ` return yield* ${what}\n`,
  replace: ` return yield* Effect.andThen(Effect.sleep(3_000), ${what})\n`
}))

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "redelivered messages of Pulsar are not recognized by their position",
    patches: [
      {
        file: inward,
        find: "seen === undefined || comparePositions(position, seen) > 0)",
        replace: "position !== undefined)"
      }
    ],
    steps: kill("in, committed", 3),
    found: ["doubled"]
  },
  {
    name: "records and the position on Pulsar are committed in two transactions",
    patches: [
      {
        file: inward,
        find: "    yield* this.writer\n      .commit(prepared.records, [{ ...this.source.positionOf, offset, metadata }])\n",
        replace:
          '    yield* this.writer.commit(prepared.records, [])\n    globalThis.reached("between")\n' +
          "    yield* this.writer\n      .commit([], [{ ...this.source.positionOf, offset, metadata }])\n"
      }
    ],
    steps: kill("between", 3),
    found: ["doubled"]
  },
  {
    name: "messages of Pulsar are acknowledged before Kafka has them",
    patches: [
      {
        file: inward,
        find: "        yield* this.mirror(some)\n        yield* this.consumer.acknowledge(some)\n",
        replace:
          "        yield* this.consumer.acknowledge(some)\n        yield* Effect.sleep(100)\n" +
          '      globalThis.reached("acknowledged early")\n        yield* this.mirror(some)\n'
      }
    ],
    steps: kill("acknowledged early", 3),
    found: ["lost"]
  },
  {
    name: "every process writes to Kafka under a transactional id of its own",
    patches: [
      {
        file: inward,
        find: "kafka.openWriter(name)",
        replace: "kafka.openWriter(`${name}/${process.pid}`)"
      },
      ...late
    ],
    steps: [zombie("in, taken"), zombie("in, taken", 3)],
    found: ["doubled"]
  },
  {
    name: "the position on Kafka is committed before Pulsar has the records",
    patches: [
      {
        file: out,
        find: "    const sending = [...byTopic]",
        replace: "    this.position = batch.next\n    yield* this.commit([])\n    const sending = [...byTopic]"
      }
    ],
    steps: kill("out, message under way", 3, 1),
    found: ["lost"]
  },
  {
    name: "a new producer does not scan what Pulsar has",
    patches: [{ file: producers, find: "      if (offset >= committed) present.add(offset)\n", replace: "" }],
    steps: [...kill("out, all stored", 1), forget, ...kill("out, all stored", 1), forget],
    found: ["doubled"]
  },
  {
    name: "every process sends to Pulsar under a producer's name of its own, and does not scan what Pulsar has",
    patches: [
      {
        file: producers,
        find: "pulsar.produce(partition, stream, false)",
        replace: "pulsar.produce(partition, `${stream}/${process.pid}`, false)"
      },
      {
        file: producers,
        find: "pulsar.produce(partition, stream, true)",
        replace: "pulsar.produce(partition, `${stream}/${process.pid}`, true)"
      },
      { file: producers, find: "      if (offset >= committed) present.add(offset)\n", replace: "" }
    ],
    steps: kill("out, all stored", 3),
    found: ["doubled"]
  },
  {
    name: "records that were lost on the way to Pulsar are taken for duplicates",
    patches: [
      {
        file: "src/pulsar/bridge-side.ts",
        find: "    if (failed !== undefined) throw (failed as { readonly cause: unknown }).cause\n",
        replace: '    if (failed !== undefined) for (const i of messages.keys()) sent[i] ??= { kind: "duplicate" }\n'
      },
      {
        file: producers,
        find: "        else if (open.isPastDuplicates) return yield* unexpected(partition)\n",
        replace: ""
      }
    ],
    steps: Array.from({ length: 4 }, (): Step => ({ kind: "cut", transport: "websocket" })),
    found: ["lost"]
  },
  {
    name: "a record is mirrored back to where it came from",
    patches: [
      {
        file: "src/bridge/route.ts",
        find: "cameThrough.includes(targetCluster)",
        replace: "false"
      }
    ],
    steps: [{ kind: "killAtRandom", afterMs: 1, ...native }],
    found: ["wrong"]
  },
  {
    name: "messages that are too large together all become dead letters",
    patches: [
      {
        file: search,
        find: 'if (kind === "tooLarge" && records.length > 1) {',
        replace: 'if (kind === "tooLarge" && records.length > 1_000_000) {'
      }
    ],
    steps: [
      { kind: "killAtRandom", afterMs: 1_000, ...native },
      { kind: "killAtRandom", afterMs: 1_000, ...native }
    ],
    found: ["lost"]
  }
]
