// The part of the event store's contract about commands that are sent again, and about answers that are remembered.
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { Aggregate } from "../../src/aggregate/aggregate.ts"
import { EventStore, type Expected } from "../../src/aggregate/event-store.ts"
import { Event } from "../../src/model/event.ts"
import { append, appendOf, commandId, events, fresh, type It, numbers, readAll } from "./event-store-support.ts"

/** Repeated commands. */
export const eventStoreRepeating = (it: It) => {
  it.effect(
    "the same command again gets the same answer, and appends nothing, whatever happened meanwhile",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const id = commandId()
      const first = yield* store.append(appendOf(aggregate, "a", "noStream", events(2)), id)
      yield* append(aggregate, "a", 2, events(3, 3))
      for (const expected of ["noStream", 0, 5, "any"] as const) {
        const again = yield* store.append(appendOf(aggregate, "a", expected, events(9, 100)), id)
        assert.deepStrictEqual(again, { ...first, repeated: true })
      }
      yield* store.archive(aggregate, "a")
      assert.deepStrictEqual(yield* store.append(appendOf(aggregate, "a", "any"), id), { ...first, repeated: true })
      const { answered } = yield* store.load(aggregate, "a", { commandId: id })
      assert.deepInclude(answered!, { version: 2, position: first.position, partition: first.partition })
      assert.deepStrictEqual(numbers(answered!.events), [1, 2])
      assert.deepStrictEqual((yield* readAll(aggregate, "a")).length, 5)
      // a command is known by its id and its stream
      assert.isFalse((yield* store.append(appendOf(aggregate, "b", "any"), id)).repeated)
    })
  )
  it.effect(
    "a command that is sent many times at once appends once",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const id = commandId()
      const answers = yield* Effect.all(
        Array.from({ length: 20 }, () => store.append(appendOf(aggregate, "a", "any", events(2)), id)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(answers.filter(({ repeated }) => !repeated).length, 1)
      assert.strictEqual(new Set(answers.map(({ version }) => version)).size, 1)
      assert.strictEqual((yield* readAll(aggregate, "a")).length, 2)
    })
  )
  it.effect(
    "a command that follows a repeated one is decided by its own expectation",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const id = commandId()
      yield* store.append(appendOf(aggregate, "a", 0, events(2)), id)
      const [again, next, wrong] = yield* Effect.all(
        [
          Effect.result(store.append(appendOf(aggregate, "a", 0, events(2)), id)),
          Effect.result(append(aggregate, "a", 2, events(1, 3))),
          Effect.result(append(aggregate, "a", 9, events(1)))
        ],
        { concurrency: "unbounded" }
      )
      assert.isTrue(again._tag === "Success" && again.success.repeated)
      assert.isTrue(next._tag === "Success" && next.success.version === 3, JSON.stringify(next))
      assert.strictEqual(wrong._tag, "Failure")
    })
  )
  it.effect(
    "a command that was decided on another's events passes only after them",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh(1)
      const store = yield* EventStore
      const send = (list: ReadonlyArray<readonly [id: string, expected: number, follows?: string]>) =>
        Effect.all(
          list.map(([id, expected, follows]) =>
            store
              .append(appendOf(aggregate, "a", expected, events(1), follows === undefined ? {} : { follows }), id)
              .pipe(
                Effect.map(({ repeated, version }) => (repeated ? `${version} again` : version)),
                Effect.catch(({ _tag }) => Effect.succeed(_tag))
              )
          ),
          { concurrency: "unbounded" }
        )
      const [a, b, c] = [commandId(), commandId(), commandId()]
      const [d, e, f, g] = [commandId(), commandId(), commandId(), commandId()]
      const chain = yield* send([
        [a, 0],
        [b, 1, a],
        [c, 2, b]
      ])
      assert.deepStrictEqual(chain, [1, 2, 3])
      // the one before is refused, and another process's event has its version
      const afterRefused = yield* send([
        [d, 2],
        [e, 3, d]
      ])
      assert.deepStrictEqual(afterRefused, ["VersionConflict", "VersionConflict"])
      // the one before is a repeat, and others have come since
      const afterRepeated = yield* send([
        [b, 2],
        [e, 3, b],
        [f, 4, e]
      ])
      assert.deepStrictEqual(afterRepeated, ["2 again", "VersionConflict", "VersionConflict"])
      // it was appended before, as the last one
      assert.deepStrictEqual(yield* send([[e, 3, c]]), [4])
      assert.deepStrictEqual(
        yield* send([
          [e, 3, c],
          [f, 4, e],
          [g, 5, f]
        ]),
        ["4 again", 5, 6]
      )
      assert.deepStrictEqual(yield* send([[d, 6, f]]), ["VersionConflict"])
      assert.deepStrictEqual(
        (yield* readAll(aggregate, "a")).map(({ version }) => version),
        [1, 2, 3, 4, 5, 6]
      )
    })
  )
  it.effect(
    "the id of another command is refused",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const [id, other] = [commandId(), commandId()]
      const one = (digest: string, expected: "any" | 0 = "any") =>
        store.append(appendOf(aggregate, "a", expected, events(1), { digest }), id)
      yield* one("open")
      assert.isTrue((yield* one("open")).repeated)
      assert.strictEqual((yield* Effect.flip(one("close")))._tag, "CommandReused")
      assert.strictEqual((yield* Effect.flip(one("close", 0)))._tag, "CommandReused")
      const loaded = yield* Effect.flip(store.load(aggregate, "a", { commandId: id, digest: "close" }))
      assert.strictEqual(loaded._tag, "CommandReused")
      assert.isDefined((yield* store.load(aggregate, "a", { commandId: id, digest: "open" })).answered)
      yield* store.remember(aggregate, "a", other, "open", { version: 1 })
      const remembered = yield* Effect.flip(store.remember(aggregate, "a", other, "close", { version: 1 }))
      assert.strictEqual(remembered._tag, "CommandReused")
    })
  )
  it.effect(
    "the answer of a command without events is remembered, and the same command does not append later",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      yield* append(aggregate, "a", "any", events(3))
      const [rejected, nothing, appended] = [commandId(), commandId(), commandId()]
      const rejection = { tag: "Taken", fields: { by: "half a pair \ud800 and NUL \0" } }
      const first = yield* store.remember(aggregate, "a", rejected, "d", { version: 3, rejection })
      const { repeated: _, ...answer } = first
      assert.deepInclude(first, { version: 3, position: -1, events: [], rejection, repeated: false })
      yield* store.remember(aggregate, "a", nothing, "d", { version: 3 })
      yield* append(aggregate, "a", "any", events(1, 4))
      assert.deepStrictEqual(yield* store.remember(aggregate, "a", rejected, "d", { version: 4 }), {
        ...answer,
        repeated: true
      })
      assert.deepStrictEqual((yield* store.load(aggregate, "a", { commandId: rejected })).answered, answer)
      const late = yield* store.append(appendOf(aggregate, "a", "any", events(1), { digest: "d" }), nothing)
      assert.deepInclude(late, { firstVersion: 4, version: 3, position: -1, repeated: true })
      // of two tries of one command the first answer counts
      yield* store.append(appendOf(aggregate, "a", 4, events(1, 5), { digest: "d" }), appended)
      const later = yield* store.remember(aggregate, "a", appended, "d", { version: 5, rejection })
      assert.deepInclude(later, { version: 5, repeated: true })
      assert.isUndefined(later.rejection)
      assert.deepStrictEqual(numbers(later.events), [5])
      assert.deepStrictEqual(numbers(yield* readAll(aggregate, "a")), [1, 2, 3, 4, 5])
    })
  )
  it.effect(
    "an answer without events is stored only while the stream has the expected version",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const [late, inTime, none] = [commandId(), commandId(), commandId()]
      const remember = (id: string, expected: Expected, version = 2) =>
        store.remember(aggregate, "a", id, "d", { version }, expected)
      yield* remember(none, "noStream", 0)
      yield* append(aggregate, "a", "any", events(2))
      assert.isFalse((yield* remember(inTime, 2)).repeated)
      yield* append(aggregate, "a", "any", events(1, 3))
      const conflict = yield* Effect.flip(remember(late, 2))
      assert.deepInclude(conflict, { _tag: "VersionConflict", stream: "a", expected: 2, actual: 3 })
      assert.isUndefined((yield* store.load(aggregate, "a", { commandId: late })).answered)
      assert.deepInclude(yield* Effect.flip(remember(late, "noStream", 0)), { _tag: "VersionConflict", actual: 3 })
      // what was answered before stays the answer, whatever is expected
      for (const expected of [2, 7, "noStream", "any"] as const)
        assert.deepInclude(yield* remember(inTime, expected), { version: 2, repeated: true })
      assert.deepInclude(yield* remember(none, 0), { version: 0, repeated: true })
      assert.isFalse((yield* remember(late, "any")).repeated)
    })
  )
  it.effect(
    "copies of a command without events that are sent at once get one answer, while others append to the stream",
    Effect.fnUntraced(function* () {
      const aggregate = yield* fresh()
      const store = yield* EventStore
      const counter = Aggregate.make({
        name: aggregate,
        events: [Event.make("counted", { n: Schema.Int })],
        commands: { keep: {} },
        state: Schema.Null,
        initial: null,
        evolve: { counted: () => null },
        decide: { keep: () => [] }
      })
      for (const [i, expected] of ([1, "any"] as const).entries()) {
        const stream = `s${i}`
        yield* append(aggregate, stream, "any")
        const id = commandId()
        const send = (through: EventStore["Service"]) =>
          Aggregate.execute(counter, stream, { type: "keep" }, { commandId: id, expected }).pipe(
            Effect.map(({ repeated, version }) => ({ answer: `nothing on ${version}`, repeated })),
            Effect.catchTag("VersionConflict", ({ actual }) =>
              Effect.succeed({ answer: `conflict with ${actual}`, repeated: undefined })
            ),
            Effect.provideService(EventStore, through)
          )
        // another process appends after this one has decided, and a third one answers a copy of the command meanwhile
        const copies: Array<Effect.Success<ReturnType<typeof send>>> = []
        const late: EventStore["Service"] = {
          ...store,
          remember: (...args) =>
            Effect.gen(function* () {
              yield* append(aggregate, stream, "any")
              copies.push(yield* send({ ...store }))
            }).pipe(Effect.orDie, Effect.provideService(EventStore, store), Effect.andThen(store.remember(...args)))
        }
        const first = yield* send(late)
        const again = yield* send({ ...store })
        assert.strictEqual(copies.length, 1)
        const answers = [...copies, first, again].map(({ answer }) => answer)
        assert.deepStrictEqual(answers, Array(3).fill(expected === 1 ? "conflict with 2" : "nothing on 2"))
        if (expected === "any")
          assert.deepStrictEqual(
            [...copies, first, again].map(({ repeated }) => repeated),
            [false, true, true]
          )
      }
    })
  )
}
