// The contract of the log on groups: members that share the partitions of a topic.
import { assert, type Vitest } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import { type Assignment, Log } from "../../src/log/log.ts"
import { fresh, range, record } from "./log-support.ts"

/** What `use` recorded: the partitions of each member, and whether two members ever had one partition at once. */
export const roster = () => {
  const having = new Map<string, Assignment & { readonly who: string }>()
  const generations = new Map<number, Array<number>>()
  const overlaps: Array<string> = []
  const use =
    (who: string, body: (assignment: Assignment) => Effect.Effect<void, Error> = () => Effect.never) =>
    (assignment: Assignment) =>
      Effect.acquireUseRelease(
        Effect.sync(() => {
          const { generation, partition } = assignment
          for (const other of having.values()) {
            if (other.partition === partition) overlaps.push(`${partition}: ${who} beside ${other.who}`)
          }
          having.set(`${who} ${partition}`, { ...assignment, who })
          generations.set(partition, [...(generations.get(partition) ?? []), generation])
        }),
        () => body(assignment),
        // releasing takes a while, and the partition must not be had by another before
        () =>
          Effect.andThen(
            Effect.sleep(20),
            Effect.sync(() => having.delete(`${who} ${assignment.partition}`))
          )
      )
  const of = (who: string) => [...having.values()].filter((one) => one.who === who).map(({ partition }) => partition)
  /** Waits until each member has this number of partitions. */
  const until = (counts: Readonly<Record<string, number>>) =>
    Effect.gen(function* () {
      const settled = () => Object.entries(counts).every(([who, count]) => of(who).length === count)
      while (!settled()) yield* Effect.sleep(10)
    }).pipe(
      Effect.timeout("25 seconds"),
      Effect.mapError(() => new Error(`wanted ${JSON.stringify(counts)}, it is ${[...having.keys()].join(", ")}`))
    )
  /** Checks that no two members had a partition at once. Does not hold after lost locks, which the other member learns of first. */
  const alone = () => assert.deepStrictEqual(overlaps, [])
  const growing = () => {
    for (const [partition, list] of generations) {
      assert.deepStrictEqual(
        list,
        [...new Set(list)].toSorted((a, b) => a - b),
        `generations of ${partition}`
      )
    }
  }
  const check = () => {
    alone()
    growing()
  }
  return { use, of, until, alone, growing, check, having, generations }
}

/** Adds the tests. */
export const logGroups = (it: Vitest.MethodsNonLive<Log>) => {
  it.effect("a sole member gets all partitions, and can read them", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(3)
      yield* log.append(
        topic,
        range(0, 3).map((partition) => record({ partition, value: `${partition}` }))
      )
      const seen: Array<string> = []
      const member = yield* Effect.forkChild(
        log.assign(topic, "readers", ({ open, partition, topic: name }) =>
          Effect.scoped(
            Effect.gen(function* () {
              const reader = yield* open(0)
              while (true)
                for (const { value } of (yield* reader.take).records)
                  seen.push(`${name === topic} ${partition} ${value}`)
            })
          )
        )
      )
      while (seen.length < 3) yield* Effect.sleep(5)
      yield* log.append(topic, [record({ partition: 1, value: "later" })])
      while (seen.length < 4) yield* Effect.sleep(5)
      yield* Fiber.interrupt(member)
      assert.deepStrictEqual(seen.toSorted(), ["true 0 0", "true 1 1", "true 1 later", "true 2 2"])
    })
  )

  it.effect("partitions are shared fairly as members join and leave", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(8)
      const { check, generations, of, until, use } = roster()
      const join = (who: string) => Effect.forkChild(log.assign(topic, "group", use(who)))
      const a = yield* join("a")
      yield* until({ a: 8 })
      const b = yield* join("b")
      yield* until({ a: 4, b: 4 })
      const c = yield* join("c")
      while (
        [of("a"), of("b"), of("c")]
          .map(({ length }) => length)
          .toSorted()
          .join() !== "2,3,3"
      )
        yield* Effect.sleep(10)
      yield* Fiber.interrupt(b)
      yield* until({ a: 4, b: 0, c: 4 })
      yield* Fiber.interrupt(a)
      yield* until({ c: 8 })
      yield* Fiber.interrupt(c)
      yield* until({ c: 0 })
      const last = Math.max(...[...generations.values()].flat())
      const d = yield* join("d")
      yield* until({ d: 8 })
      for (const list of generations.values()) assert.isTrue(list.at(-1)! > last)
      yield* Fiber.interrupt(d)
      check()
    })
  )

  it.effect("with more members than partitions, a member without any takes over when another leaves", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(1)
      const { check, of, until, use } = roster()
      const members = new Map<string, Fiber.Fiber<never, unknown>>()
      for (const who of ["a", "b"]) members.set(who, yield* Effect.forkChild(log.assign(topic, "group", use(who))))
      while (of("a").length + of("b").length !== 1) yield* Effect.sleep(5)
      const [first, second] = of("a").length === 1 ? ["a", "b"] : ["b", "a"]
      yield* Fiber.interrupt(members.get(first!)!)
      yield* until({ [second!]: 1 })
      yield* Fiber.interrupt(members.get(second!)!)
      check()
    })
  )

  it.effect("groups, and topics of a group, are independent", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const [one, two] = [yield* fresh(2), yield* fresh(2)]
      const rosters = [roster(), roster(), roster()]
      const members = yield* Effect.forEach(
        [
          [one, "x"],
          [one, "y"],
          [two, "x"]
        ] as const,
        ([topic, group], i) => Effect.forkChild(log.assign(topic, group, rosters[i]!.use("me")))
      )
      for (const { until } of rosters) yield* until({ me: 2 })
      yield* Effect.forEach(members, Fiber.interrupt)
      for (const { having } of rosters) assert.strictEqual(having.size, 0)
    })
  )

  it.effect("`assign` fails with the first failure of a `use`, after the others were interrupted", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(3)
      const { check, having, use, until } = roster()
      const failing = use("a", ({ partition }) =>
        partition === 1 ? Effect.andThen(Effect.sleep(50), Effect.fail(new Error("no"))) : Effect.never
      )
      const error = yield* Effect.flip(log.assign(topic, "group", failing))
      assert.strictEqual((error as Error).message, "no")
      assert.strictEqual(having.size, 0)
      const defect = yield* Effect.exit(log.assign(topic, "group", () => Effect.die("bug")))
      assert.match(JSON.stringify(defect), /bug/)
      // and it left: another gets everything
      const b = yield* Effect.forkChild(log.assign(topic, "group", use("b")))
      yield* until({ b: 3 })
      yield* Fiber.interrupt(b)
      check()
    })
  )

  it.effect("`assign` goes on when a `use` ends", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(2)
      const ran: Array<number> = []
      const member = yield* Effect.forkChild(
        log.assign(topic, "group", ({ partition }) => Effect.sync(() => void ran.push(partition)))
      )
      while (ran.length < 2 && member.pollUnsafe() === undefined) yield* Effect.sleep(5)
      yield* Effect.sleep(150)
      assert.isUndefined(member.pollUnsafe())
      yield* Fiber.interrupt(member)
      assert.sameMembers(ran, [0, 1])
    })
  )

  it.effect("a `use` has the services that the caller provides", () =>
    Effect.gen(function* () {
      const log = yield* Log
      const topic = yield* fresh(1)
      const closed: Array<string> = []
      const began = yield* Deferred.make<void>()
      const use = (): Effect.Effect<void, never, Scope.Scope> =>
        Effect.addFinalizer(() => Effect.sync(() => closed.push("closed"))).pipe(
          Effect.andThen(Deferred.succeed(began, undefined)),
          Effect.andThen(Effect.never)
        )
      const member = yield* Effect.forkChild(Effect.scoped(log.assign(topic, "group", use)))
      yield* Deferred.await(began)
      yield* Fiber.interrupt(member)
      assert.deepStrictEqual(closed, ["closed"])
    })
  )
}
