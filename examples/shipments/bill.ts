// A program of its own that subscribes to the shipments and adds up what each carrier is owed, every parcel once.
import { Effect } from "effect"
import { FanOut, Subscription } from "millrace"
import { layer, once, openDatabase } from "millrace/system"
import { shipments } from "./shop.ts"

/** What a carrier charges for a parcel, in øre. */
const price = (carrier: string, grams: number) => (carrier === "citybike" ? 8_900 : 5_000 + 2 * grams)

const bills = Subscription.make({ topic: shipments, name: "bills", type: "keyShared", from: "earliest" })

const program = Effect.gen(function* () {
  // this program's own table, here in the database of the application; it could be in any other PostgreSQL
  const { sql } = yield* openDatabase(".millrace", "join")
  yield* Effect.promise(
    async () => sql`create table if not exists carrier_bill (carrier text primary key, parcels int, ore int)`
  )
  if (process.argv.includes("--again")) {
    const fanOut = yield* FanOut
    yield* fanOut.seek({ topic: shipments.name, name: bills.name, type: bills.type }, "earliest")
  }
  console.log("waiting for shipments; stop with Ctrl-C")
  // `tx` is a transaction in which the message is also marked as handled: both are committed, or neither
  yield* Subscription.run(
    bills,
    ({ carrier, grams, parcel_id }, _, tx) =>
      Effect.promise(async () => {
        await tx`insert into carrier_bill as bill values (${carrier}, 1, ${price(carrier, grams)})
          on conflict (carrier) do update set parcels = bill.parcels + 1, ore = bill.ore + excluded.ore`
        console.log(`billed ${parcel_id} of ${carrier}`)
      }),
    { once: yield* once() }
  )
}).pipe(Effect.scoped, Effect.provide(layer()))

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort())
const exit = await Effect.runPromiseExit(program, { signal: stop.signal })
if (exit._tag === "Failure" && !stop.signal.aborted) throw new Error("the program failed", { cause: exit.cause })
