// Prepares a database without brokers as a start does: tables, the aggregate's topic, the inline projection. Events go to the outbox, where they stay.
import * as Effect from "effect/Effect"
import { connect } from "../../../src/postgres/client/client.ts"
import { migrate } from "../../../src/postgres/client/migrate.ts"
import * as PostgresEvents from "../../../src/postgres/events/events.ts"
import { aggregatesOf, partitionsOf } from "../../../src/model/application.ts"
import { noteLifecycles } from "../../../src/postgres/store/lifecycles.ts"
import * as PostgresStore from "../../../src/postgres/store/store.ts"
import { moveOnce } from "../../../src/system/lifecycles.ts"
import application, { Ledger } from "./application.config.ts"

await Effect.runPromise(
  Effect.scoped(
    Effect.gen(function* () {
      const sql = yield* connect(process.env["MILLRACE_DATABASE_URL"]!, { max: 2 })
      yield* migrate(sql)
      const { store } = PostgresEvents.make(sql, { application })
      yield* store.declare(aggregatesOf(application).map(({ name, partitions }) => ({ name, partitions })))
      yield* PostgresEvents.publish(sql, [Ledger.name], ["kafka"])
      const partitions = partitionsOf(application)
      yield* PostgresStore.make(sql).prepare(
        application.projections.map(({ projection }) => projection),
        (name) => partitions.get(name) ?? 1
      )
      yield* noteLifecycles(sql, application.projections)
      yield* moveOnce(sql)
    })
  )
)
