// What `millrace dev` prints about aggregates.
import { Schema } from "effect"
import { assert, test } from "vitest"
import { commandsForPeople } from "../../../src/cli/print-aggregates.ts"
import { Aggregate, Application, Event, Policy } from "../../../src/index.ts"

const Placed = Event.make("placed", { id: Schema.String })
const Order = Aggregate.make({
  name: "order",
  id: "id",
  events: [Placed],
  commands: { place: { id: Schema.String }, pay: { id: Schema.String }, expire: { id: Schema.String } },
  state: Schema.Struct({}),
  initial: {},
  evolve: { placed: (state) => state },
  decide: { place: (_, { id }) => Placed.make({ id }), pay: () => [], expire: () => [] }
})
const sending = (handle: object | ((...args: never) => unknown)) =>
  Application.make({
    name: "orders",
    projections: [],
    aggregates: [Order],
    policies: [Policy.make({ name: "unpaid", version: 1, source: Order, writes: [Order], handle: handle as never })]
  })
type Out = {
  readonly timer: (name: string, timer: object) => void
  readonly send: (...args: ReadonlyArray<unknown>) => void
}

test("people are shown the commands that no policy sends, by a timer or at once, whatever the timer is called", () => {
  const byTimer = sending({
    placed: ({ id }: { id: string }, out: Out) => out.timer("pay", { after: 5, send: [Order, id, { type: "expire" }] })
  })
  assert.deepStrictEqual(commandsForPeople(byTimer, Order), ["place", "pay"])
  const atOnce = sending(({ id }: { id: string }, out: Out) => out.send(Order, id, { type: "pay" }))
  assert.deepStrictEqual(commandsForPeople(atOnce, Order), ["place", "expire"])
})
test("people are shown all commands of an aggregate that no policy sends any to, or whose policies send all", () => {
  const none = Application.make({ name: "orders", projections: [], aggregates: [Order] })
  assert.deepStrictEqual(commandsForPeople(none, Order), ["place", "pay", "expire"])
  const all = sending((_: object, out: Out) => {
    for (const command of [{ type: "place" }, { type: "pay" }, { type: "expire" }]) out.send(Order, "a", command)
  })
  assert.deepStrictEqual(commandsForPeople(all, Order), ["place", "pay", "expire"])
})
