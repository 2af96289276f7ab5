// Readers of the read models, as users have them: none may see an error, a missing view, or rows of two builds at once.
//
// Each build has a row of the harness in each of its tables, whose number is the build's.
import { setTimeout as sleep } from "node:timers/promises"
import * as Effect from "effect/Effect"
import type postgres from "postgres"
import { type Session, transaction } from "../../../src/postgres/client/client.ts"
import type { Random } from "../../support/random.ts"
import { connect } from "../harness/postgres.ts"
import type { Differences } from "../harness/differences.ts"

/** The key of the harness's rows. */
export const marker = "#build"

/** When the database is down, because the run killed it. */
export interface Outages {
  count: number
  isDown: boolean
}
/** What readers need of a run. */
export interface ReadersOptions {
  readonly differences: Differences
  readonly outages: Outages
  readonly random: Random
}
/** Whether PostgreSQL, or the connection to it, was lost. */
const isLost = (error: unknown) =>
  /^(CONNECT|CONNECTION|ECONN|EPIPE|57P0|08)/.test(String((error as { readonly code?: unknown }).code))

interface Marks {
  readonly entries: number
  readonly totals: number
}
const both = (sql: Session) => sql<Array<Marks>>`
  select e.n as entries, t.n as totals from entries e full join totals t on t.key = e.id where e.id = ${marker} or t.key = ${marker}`
const one = async (sql: Session, of: "entries" | "totals") => {
  const rows =
    of === "entries"
      ? await sql<Array<{ n: number }>>`select n from entries where id = ${marker}`
      : await sql<Array<{ n: number }>>`select n from totals where key = ${marker}`
  return rows[0]?.n
}

/** Runs `use` in a transaction. The driver's own `begin` crashes this process when the connection is lost between two statements. */
const begin = (sql: postgres.Sql, isolation: string, use: (tx: Session) => Promise<void>): Promise<void> =>
  Effect.runPromise(
    transaction(sql, (tx) =>
      Effect.tryPromise({
        try: async () => {
          await tx.unsafe(`set transaction isolation level ${isolation}`)
          await use(tx)
        },
        catch: (cause) => cause
      })
    )
  )

/** The readers of a run, each on a connection of its own. */
export class Readers {
  /** How often they have read. */
  reads = 0
  /** How often a reading was lost because the run killed the server or its sessions. */
  lost = 0
  private reading = true
  private readonly differences: Differences
  private readonly outages: Outages
  private readonly random: Random
  private readonly running: ReadonlyArray<Promise<void>>
  private readonly connections: ReadonlyArray<postgres.Sql>

  constructor(url: string, { differences, outages, random }: ReadersOptions) {
    this.differences = differences
    this.outages = outages
    this.random = random
    const readers = [this.openTransaction, this.prepared, this.repeatable, this.late]
    this.connections = readers.map(() => connect(url, 1))
    this.running = readers.map((read, i) => this.loop(this.connections[i]!, read))
  }
  async stop(): Promise<void> {
    this.reading = false
    await Promise.all(this.running)
    await Promise.all(this.connections.map((sql) => sql.end({ timeout: 1 })))
  }

  private async loop(sql: postgres.Sql, read: (sql: postgres.Sql) => Promise<void>) {
    while (this.reading) {
      const { count, isDown } = this.outages
      try {
        await read(sql)
        this.reads++
      } catch (error) {
        if (isLost(error) && (isDown || this.outages.isDown || this.outages.count !== count)) this.lost++
        else this.differences.add("wrong", `a reader failed: ${(error as Error).message}`)
      }
      // the views are changed at moments at which no transaction has read them
      await sleep(this.random.int(20, 300))
    }
  }
  private same(what: string, found: ReadonlyArray<number | undefined | null>) {
    const builds = new Set(found)
    if (builds.size !== 1 || typeof found[0] !== "number")
      this.differences.add("wrong", `a reader of ${what} saw builds ${found.map(String).join(", ")}`)
  }
  private readonly openTransaction = (sql: postgres.Sql) =>
    begin(sql, "read committed", async (tx) => {
      for (let i = 0; i < 2; i++) {
        const rows = await both(tx)
        this.same("one statement in an open transaction", [
          rows.length === 1 ? rows[0]!.entries : undefined,
          rows[0]?.totals
        ])
        await sleep(this.random.int(0, 60))
      }
    })
  private readonly prepared = async (sql: postgres.Sql) => {
    // the driver prepares it once and executes it again and again
    const rows = await both(sql)
    this.same("a prepared statement", [rows.length === 1 ? rows[0]!.entries : undefined, rows[0]?.totals])
  }
  /** Its snapshot is older than its first look at a view: a view that was replaced meanwhile would show it the other build. */
  private readonly late = (sql: postgres.Sql) =>
    begin(sql, "repeatable read", async (tx) => {
      const [live] = await tx<Array<{ version: number }>>`select version from millrace.live where projection = 'ledger'`
      await sleep(this.random.int(0, 400))
      this.same("a view that is younger than its snapshot", [
        live?.version,
        await one(tx, "entries"),
        await one(tx, "totals")
      ])
    })
  private readonly repeatable = (sql: postgres.Sql) =>
    begin(sql, "repeatable read", async (tx) => {
      const first = await one(tx, "entries")
      const sum = () =>
        tx`select (select sum(n) from totals) as n, (select count(*) from entries where id between 'e1000' and 'e1001') as entries`
      const [before] = await sum()
      await sleep(this.random.int(0, 300))
      const second = await one(tx, "totals")
      const third = await one(tx, "entries")
      const [after] = await sum()
      this.same("a repeatable read transaction", [first, second, third])
      this.differences.same("the sums in a repeatable read transaction", JSON.stringify(after), JSON.stringify(before))
    })
}
