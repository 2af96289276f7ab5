// An application that re-keys the events of two aggregates and two topics by their order, and a projection that keeps all events of an order in one row.
import * as Schema from "effect/Schema"
import { Aggregate, Application, Event, Projection, ReadModel, Topic } from "../../src/index.ts"

/** Begins the names of its topics, so that tests which share a cluster do not meet. */
const name = process.env["TEST_NAME"] ?? "rekeyed"
/** Without it the key of events whose order begins with `bad` is not found. */
const isFixed = process.env["TEST_FIXED"] === "yes"

const fields = { of: Schema.String, order: Schema.NullOr(Schema.String), n: Schema.Int }
const aggregate = <const Type extends string>(type: Type, partitions: number) => {
  const Noted = Event.make(`${type}.noted` as const, fields)
  return Aggregate.make({
    name: `${name}-${type}`,
    id: "of",
    partitions,
    events: [Noted],
    commands: { note: fields },
    state: Schema.Null,
    initial: null,
    evolve: { [`${type}.noted`]: () => null } as never,
    decide: {
      note: (_: null, { n, of, order }: { n: number; of: string; order: string | null }) => Noted.make({ of, order, n })
    }
  })
}
const topic = <const Type extends string>(type: Type, partitions: number) =>
  Topic.events(`${name}.${type}`, { events: [Event.make(`${type}.noted` as const, fields)], key: "of", partitions })
const [invoice, payment] = [aggregate("invoice", 3), aggregate("payment", 2)]
const [parcels, returns] = [topic("parcel", 3), topic("return", 2)]

const keyOf = ({ order }: { readonly order: string | null }) => {
  if (order?.startsWith("bad") === true && !isFixed) throw new Error(`the order ${order} is not known`)
  return order ?? undefined
}
const byOrder = Projection.rekey({
  name: `${name}_by_order`,
  version: Number(process.env["TEST_VERSION"] ?? 1),
  source: [invoice, payment, parcels, returns],
  key: keyOf,
  partitions: 4
})
const orders = ReadModel.table("orders", {
  columns: { order_id: Schema.String, events: Schema.Array(Schema.String) },
  primaryKey: ["order_id"]
})
const history = Projection.make({
  name: "history",
  version: 1,
  source: byOrder.topic,
  writes: [orders],
  handle: ({ n, of, type }, out, { meta: { key: order_id } }) =>
    out.modify(orders, { order_id }, (row) => ({ order_id, events: [...(row?.events ?? []), `${type} ${of} ${n}`] }))
})

export default Application.make({
  name,
  aggregates: [invoice, payment],
  projections: [Projection.async(byOrder.projection), Projection.async(history)]
})
