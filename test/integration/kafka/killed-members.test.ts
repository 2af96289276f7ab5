// A killed process must not keep its partitions until its session ends if the next process starts on the same machine.
import { spawn } from "node:child_process"
import { once } from "node:events"
import { createInterface } from "node:readline"
import { setTimeout as sleep } from "node:timers/promises"
import { fileURLToPath } from "node:url"
import { assert, it as vitest } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { hasEnded, ownProcess } from "../../../src/kafka/log/process-identity.ts"
import { Log } from "../../../src/log/log.ts"
import { fresh, range } from "../../contract/log-support.ts"
import { brokers, nodeWithLog } from "../../support/kafka.ts"
import { owning } from "../../support/stack.ts"

// the test would run out of time long before such a session does
const sessionMs = 600_000
const partitions = 4
const layer = nodeWithLog({ sessionMs, heartbeatMs: 200 }, { properties: { "group.max.session.timeout.ms": "900000" } })
const child = fileURLToPath(new URL("../../support/member-child.ts", import.meta.url))
const program = "Deno" in globalThis ? ["run", "-A", child] : [child]

/** A process that has every partition. */
const memberOf = async (args: ReadonlyArray<string>) => {
  const member = spawn(process.execPath, [...program, ...args], { stdio: ["ignore", "pipe", "inherit"] })
  const had = new Set<string>()
  for await (const line of createInterface({ input: member.stdout })) {
    had.add(line)
    if (had.size === partitions) break
  }
  return member
}

/** Takes part in the group until it is interrupted, and records which partitions it was assigned. */
const taker = (log: Log["Service"], topic: string) => {
  const given = new Set<number>()
  const taking = log.assign(topic, "g", ({ partition }) =>
    Effect.andThen(
      Effect.sync(() => void given.add(partition)),
      Effect.never
    )
  )
  return { given, taking }
}

const suite = await owning("kafka")
suite("killed members of a group", () => {
  vitest.layer(layer, { timeout: "60 seconds", excludeTestServices: true })("Log (Kafka)", (it) => {
    it.effect("lose their partitions at once to a member that starts on the same machine", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh(partitions)
        const args = [(yield* brokers).join(","), topic, "g", String(sessionMs)]
        yield* Effect.promise(async () => {
          const member = await memberOf(args)
          const ended = once(member, "exit")
          member.kill("SIGKILL")
          await ended
        })
        const { given, taking } = taker(log, topic)
        yield* Effect.raceFirst(
          taking,
          Effect.gen(function* () {
            while (given.size < partitions) yield* Effect.sleep(20)
          })
        )
        assert.deepStrictEqual(
          [...given].toSorted((a, b) => a - b),
          range(0, partitions)
        )
      })
    )

    it.effect("are noticed also while another member is joining", () =>
      Effect.gen(function* () {
        const log = yield* Log
        const topic = yield* fresh(partitions)
        const args = [(yield* brokers).join(","), topic, "g", String(sessionMs)]
        const member = yield* Effect.promise(() => memberOf(args))
        // it takes no part in the rebalance, so the other member waits for it
        process.kill(member.pid!, "SIGSTOP")
        const { given, taking } = taker(log, topic)
        yield* Effect.raceFirst(
          taking,
          Effect.gen(function* () {
            yield* Effect.sleep(1_000)
            assert.strictEqual(given.size, 0)
            process.kill(member.pid!, "SIGKILL")
            while (given.size < partitions) yield* Effect.sleep(20)
          })
        )
      })
    )

    it.effect.skipIf(process.platform !== "linux")("are noticed where their parent does not ask about them", () =>
      Effect.promise(async () => {
        // the shell replaces itself by a program that never waits for the child, as a shell would, so the child becomes a zombie
        const parent = spawn("sh", ["-c", "sleep 0.5 & echo $!; exec sleep 60"], {
          stdio: ["ignore", "pipe", "inherit"]
        })
        try {
          const [line] = (await once(createInterface({ input: parent.stdout }), "line")) as [string]
          const defunct = { ...ownProcess, pid: Number(line) }
          while (!hasEnded(defunct)) await sleep(20)
          // signals still reach it
          process.kill(defunct.pid, 0)
        } finally {
          parent.kill("SIGKILL")
        }
      })
    )

    it.effect(
      "a dead process is distinguished from a live one, one on another host, and one whose pid was reused",
      () =>
        Effect.sync(() => {
          assert.isFalse(hasEnded(ownProcess))
          assert.isTrue(hasEnded({ ...ownProcess, since: ownProcess.since - 1 }))
          assert.isFalse(hasEnded({ ...ownProcess, pid: process.ppid }))
          assert.isFalse(hasEnded({ ...ownProcess, host: `not-${ownProcess.host}`, since: 0 }))
        })
    )
  })
})
