// Readers of the read models, as users have them: none may see an error, a missing view, or rows of two builds at once.
//
// Each build has a row of the harness in each of its tables, whose number is the build's.
import { setTimeout as sleep } from "node:timers/promises"
import type postgres from "postgres"
import type { Random } from "../../support/random.ts"
import { connect } from "../harness/postgres.ts"
import type { Differences } from "../harness/differences.ts"

/** The key of the harness's rows. */
export const marker = "#build"

interface Marks {
  readonly entries: number
  readonly totals: number
}
const both = (sql: postgres.Sql | postgres.TransactionSql) => sql<Array<Marks>>`
  select e.n as entries, t.n as totals from entries e full join totals t on t.key = e.id where e.id = ${marker} or t.key = ${marker}`
const one = async (sql: postgres.TransactionSql, of: "entries" | "totals") => {
  const rows =
    of === "entries"
      ? await sql<Array<{ n: number }>>`select n from entries where id = ${marker}`
      : await sql<Array<{ n: number }>>`select n from totals where key = ${marker}`
  return rows[0]?.n
}

/** The readers of a run, each on a connection of its own. */
export class Readers {
  /** How often they have read. */
  reads = 0
  private reading = true
  private readonly differences: Differences
  private readonly random: Random
  private readonly running: ReadonlyArray<Promise<void>>
  private readonly connections: ReadonlyArray<postgres.Sql>

  constructor(url: string, differences: Differences, random: Random) {
    this.differences = differences
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
      try {
        await read(sql)
        this.reads++
      } catch (error) {
        this.differences.add("wrong", `a reader failed: ${(error as Error).message}`)
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
    sql.begin(async (tx) => {
      for (let i = 0; i < 2; i++) {
        const rows = await both(tx)
        this.same("one statement in an open transaction", [
          rows.length === 1 ? rows[0]!.entries : undefined,
          rows[0]?.totals
        ])
        await sleep(this.random.int(0, 60))
      }
    }) as Promise<void>
  private readonly prepared = async (sql: postgres.Sql) => {
    // the driver prepares it once and executes it again and again
    const rows = await both(sql)
    this.same("a prepared statement", [rows.length === 1 ? rows[0]!.entries : undefined, rows[0]?.totals])
  }
  /** Its snapshot is older than its first look at a view: a view that was replaced meanwhile would show it the other build. */
  private readonly late = (sql: postgres.Sql) =>
    sql.begin("isolation level repeatable read", async (tx) => {
      const [live] = await tx<Array<{ version: number }>>`select version from millrace.live where projection = 'ledger'`
      await sleep(this.random.int(0, 400))
      this.same("a view that is younger than its snapshot", [
        live?.version,
        await one(tx, "entries"),
        await one(tx, "totals")
      ])
    }) as Promise<void>
  private readonly repeatable = (sql: postgres.Sql) =>
    sql.begin("isolation level repeatable read", async (tx) => {
      const first = await one(tx, "entries")
      const [before] = await tx`select count(*) as n from entries`
      await sleep(this.random.int(0, 300))
      const second = await one(tx, "totals")
      const third = await one(tx, "entries")
      const [after] = await tx`select count(*) as n from entries`
      this.same("a repeatable read transaction", [first, second, third])
      this.differences.same("the number of rows in a repeatable read transaction", after!["n"], before!["n"])
    }) as Promise<void>
}
