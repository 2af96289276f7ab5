// Runs the fan-out's contract for the adapters that need nothing installed.
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { Log } from "../../src/log.ts"
import * as PostgresFanOut from "../../src/postgres/fanout.ts"
import * as PostgresLog from "../../src/postgres/log.ts"
import { database } from "../support/postgres.ts"
import { Topics } from "./fanout-support.ts"
import { fanOutContract } from "./fanout.ts"

const layer = Layer.unwrap(
  Effect.map(database, ({ sql }) => {
    const log = PostgresLog.layer(sql)
    const topics = Layer.effect(
      Topics,
      Effect.map(Effect.service(Log), (log) => ({
        declare: (name: string, partitions: number) =>
          log.declare([{ name, partitions, compacted: false, retentionMs: undefined }]),
        publish: (topic: string, messages) =>
          Effect.asVoid(
            log.append(
              topic,
              messages.map(({ key, partition = 0, seq }) => ({
                partition,
                key,
                value: JSON.stringify({ seq, key }),
                eventTime: 1_000 + seq,
                eventId: `e${seq}`,
                tenant: "t",
                traceparent: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                schemaVersion: 1,
                headers: { "millrace-stream": "s", "millrace-seq": String(seq) }
              }))
            )
          ),
        another: Effect.flatMap(PostgresLog.make(sql), ({ log }) => PostgresFanOut.make(sql, log))
      }))
    )
    return Layer.merge(PostgresFanOut.layer(sql), topics).pipe(Layer.provideMerge(log))
  })
)

fanOutContract("PostgreSQL", layer)
