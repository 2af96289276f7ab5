// A consumer: keeps a list of what must be ordered again, in a table of its own. It reads from Pulsar, or embedded from the log.
import { Effect } from "effect"
import { Subscription } from "millrace"
import { layer, once, openDatabase } from "millrace/system"
import { levels } from "./millrace.config.ts"

const fewest = 10
const reorders = Subscription.make({ topic: levels, name: "reorders", type: "keyShared", from: "earliest" })

const program = Effect.gen(function* () {
  const { sql } = yield* openDatabase(".millrace", "join")
  yield* Effect.promise(async () => sql`create table if not exists reorder (product text primary key, pieces int)`)
  console.log("waiting for stock levels")
  yield* Subscription.run(
    reorders,
    ({ pieces, product }, _, tx) =>
      Effect.promise(async () => {
        if (pieces >= fewest) await tx`delete from reorder where product = ${product}`
        else
          await tx`insert into reorder values (${product}, ${pieces}) on conflict (product) do update set pieces = excluded.pieces`
        console.log(`${product}: ${pieces} left${pieces < fewest ? ", order more" : ""}`)
      }),
    { once: yield* once() }
  )
}).pipe(Effect.scoped, Effect.provide(layer()))

const stop = new AbortController()
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stop.abort())
const exit = await Effect.runPromiseExit(program, { signal: stop.signal })
if (exit._tag === "Failure" && !stop.signal.aborted) throw new Error("the consumer failed", { cause: exit.cause })
