// Mutants: the relay to Pulsar and its consumers without one of their protections, each as a patch of the source. The harness must find every one,
// or it proves nothing.
import type { Patch } from "../harness/patched-copy.ts"
import { type Finding, isCaught } from "../harness/command.ts"
import type { TransportName } from "../../support/pulsar.ts"
import { execute, type Report } from "./execute.ts"
import type { Plan, Step } from "./plan.ts"

/** A mutant, and the run that reveals it. */
export interface Mutant {
  readonly name: string
  readonly patches: ReadonlyArray<Patch>
  readonly plan: Plan
  /** What it must be found by: at least one of these. */
  readonly found: ReadonlyArray<Finding>
  /** The transport on which it shows; by default any. */
  readonly transport?: TransportName
}

const channel = "src/pulsar/relay/channel.ts"
const stream = "src/pulsar/relay/stream.ts"
const subscription = "src/subscription/subscription.ts"
const left = (...steps: ReadonlyArray<Step>): Plan => ({ left: steps, right: [] })
const right = (...steps: ReadonlyArray<Step>): Plan => ({ left: [], right: steps })
const relayKilled = (name: string, nth: number): Step => ({ kind: "killAtPoint", role: "relay", name, nth })
const consumerKilled = (name: string, nth: number): Step => ({ kind: "killAtPoint", role: "consumer", name, nth })

/** All of them. */
export const mutants: ReadonlyArray<Mutant> = [
  {
    name: "a relay sends without reading what the topic has",
    patches: [
      {
        file: channel,
        find: "    const tail = await readTail(cluster, this.topic, stream, known.place)\n",
        replace:
          "    const tail = known.place === stream ? await readTail(cluster, this.topic, stream, known.place) : { present: [], end: undefined }\n"
      }
    ],
    plan: right({ kind: "forget", nth: 40 }, { kind: "forget", nth: 40 }),
    found: ["doubled", "hang"]
  },
  {
    name: "every relay has a producer's name of its own",
    patches: [
      {
        file: "src/pulsar/relay/position.ts",
        find: "  `${prefix}/${stream}#${generation}`\n",
        replace: "  `${prefix}/${stream}#${generation}/${process.pid}`\n"
      }
    ],
    plan: right({ kind: "relayZombie", name: "before sending", nth: 1 }),
    // over WebSocket Pulsar has closed the connection by then
    transport: "native",
    found: ["doubled"]
  },
  {
    name: "sequence ids begin at 0 again with every connection",
    patches: [{ file: channel, find: "    this.sent = sent\n", replace: "    this.sent = 0\n" }],
    plan: right(relayKilled("receipt came", 30), relayKilled("receipt came", 30)),
    found: ["hang", "lost"],
    transport: "native"
  },
  {
    name: "the position is stored before Pulsar has confirmed the messages",
    patches: [{ file: stream, find: "left: found.length }", replace: "left: 0 }" }],
    plan: right(relayKilled("before sending", 5), relayKilled("position moved", 1)),
    found: ["lost", "hang"]
  },
  {
    name: "messages that no topic accepts are not parked",
    patches: [
      {
        file: stream,
        find: "    else this.parked.push(",
        replace: "    else if (process.pid < 0) this.parked.push("
      }
    ],
    plan: right({ kind: "poison" }),
    found: ["lost"]
  },
  {
    name: "messages that no topic accepts are tried forever",
    patches: [
      {
        file: channel,
        find: `    if (failure.kind !== "messageTooLarge") return`,
        replace: "    if (process.pid > 0) return"
      }
    ],
    plan: right({ kind: "poison" }),
    found: ["wrong", "hang"]
  },
  {
    name: "a stopped relay keeps its lane",
    patches: [
      {
        file: "src/postgres/relay/lanes.ts",
        find: "const silentMs = 10_000\n",
        replace: "const silentMs = 10_000_000\n"
      }
    ],
    plan: right({ kind: "relayZombie", name: "before sending", nth: 1 }),
    found: ["hang"]
  },
  {
    name: "messages are acknowledged before they are handled",
    patches: [
      {
        file: subscription,
        find: "    const exit = yield* Effect.exit(Effect.suspend(() => handle(decoded.value, message)))\n",
        replace:
          "    yield* consumer.acknowledge([message])\n    const exit = yield* Effect.exit(Effect.suspend(() => handle(decoded.value, message)))\n"
      }
    ],
    plan: left(consumerKilled("message marked", 20), consumerKilled("effect written", 20)),
    found: ["lost", "hang"]
  },
  {
    name: "handled messages are not marked",
    patches: [
      {
        file: "src/postgres/subscription/once.ts",
        find: `        if (row?.["marked"] !== true) return "before" as const\n`,
        replace: `        if (row === undefined) return "before" as const\n`
      }
    ],
    plan: left(consumerKilled("committed", 20), consumerKilled("committed", 30)),
    found: ["doubled"]
  },
  {
    name: "later messages of a key are delivered after one that failed",
    patches: [
      {
        file: subscription,
        find: `    return type !== "keyShared"\n`,
        replace: "    return redeliveries >= 0\n"
      },
      {
        file: "src/pulsar/subscription/fanout.ts",
        find: "new PulsarConsumer({\n          transport: cluster.transport,\n          settings,",
        replace: `new PulsarConsumer({\n          transport: cluster.transport,\n          settings: settings.type === "keyShared" ? { ...settings, type: "shared" } : settings,`
      }
    ],
    plan: left({ kind: "storm" }),
    found: ["order"]
  }
]

/** Runs the harness against a mutant, and returns whether it was found. */
export const hunt = async (
  mutant: Mutant,
  seed: number,
  say: (line: string) => void = () => undefined
): Promise<{ readonly caught: boolean; readonly report: Report }> => {
  const { found, patches, plan, transport } = mutant
  const report = await execute({
    seed,
    plan,
    messages: 600,
    mutant: patches,
    patienceMs: 40_000,
    say,
    ...(transport !== undefined && { transport })
  })
  return { caught: isCaught(found, report), report }
}
