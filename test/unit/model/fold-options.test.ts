// Aggregates, upcasters and handlers that can never work are refused where they are declared.
import * as Schema from "effect/Schema"
import { describe, expect, test } from "vitest"
import { Event } from "../../../src/model/event.ts"
import { Topic } from "../../../src/model/topic.ts"
import { Projection } from "../../../src/model/projection.ts"
import { Agg } from "../../../src/model/window.ts"

const fold = { input: Schema.Int, state: Schema.Int, initial: 0, add: (a: number, b: number) => a + b }
class Handler {
  run() {}
}

describe("Agg.fold refuses", () => {
  test.each([
    ["no `add`", { ...fold, add: undefined }, "add"],
    ["an `add` that is no function", { ...fold, add: 1 }, "Agg.fold: `add` is number; it must be a function"],
    ["a class as `add`", { ...fold, add: Handler }, "Agg.fold: `add` is a class; it must be a function"],
    ["a `merge` that is no function", { ...fold, merge: "x" }, "Agg.fold: `merge` is string; it must be a function"],
    ["an async `add`", { ...fold, add: async () => 1 }, "Agg.fold: `add` is an async function"],
    [
      "an `initial` that is no state",
      { ...fold, initial: "x" },
      "Agg.fold: `initial` does not fit the schema of `state`"
    ],
    ["no `initial`", { ...fold, initial: undefined }, "initial"],
    ["a `state` that is no schema", { ...fold, state: Number }, "Agg.fold: `state` is no schema"],
    ["an unknown option", { ...fold, initail: 0 }, "initail"]
  ])("%s", (_, options, message) => {
    expect(() => Agg.fold(options as never)).toThrow(message)
  })
  test("nothing that can work", () => {
    expect(Agg.fold({ ...fold, merge: fold.add }).sql).toBe("fold")
  })
})
test("an upcaster or a handler that is no function, or a class, is refused", () => {
  const made = Event.make("made", { id: Schema.String })
  for (const upcast of ["x", undefined, Handler])
    expect(() => made.upcast({ id: Schema.String, n: Schema.Int }, upcast as never)).toThrow("it must be a function")
  const source = Topic.events("things", { events: [made], key: "id" })
  const projection = (handle: unknown) => () =>
    Projection.make({ name: "p", version: 1, source, writes: [], handle: handle as never })
  expect(projection(Handler)).toThrow("projection p: the handler is a class; it must be a function")
  expect(projection("x")).toThrow("it must be a function")
})
