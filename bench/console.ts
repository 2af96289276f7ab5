// The console under load, in Chromium: main-thread time a second and memory of each live page while events come in, the time to its first number, and how fast
// pages open on large tables, many dead letters and many keys.
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, CDPSession, Page } from "playwright-core"
import { launchChromium } from "../site/chromium.ts"
import { eventually, openConsole, routes, settled, show } from "../test/support/browser/console.ts"
import { reference } from "../test/support/http.ts"
import { serveSystem } from "../test/support/served-system.ts"

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "2000" },
    keys: { type: "string", default: "100000" },
    rows: { type: "string", default: "1000000" },
    "dead-letters": { type: "string", default: "10000" },
    seconds: { type: "string", default: "30" },
    minutes: { type: "string", default: "0" }
  }
})
const [rate, keys, rows, seconds, minutes] = [
  values.rate,
  values.keys,
  values.rows,
  values.seconds,
  values.minutes
].map(Number) as [number, number, number, number, number]
const deadLetters = Number(values["dead-letters"])
const scope = Scope.makeUnsafe()
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))
const rounded = (value: number, digits = 1) => Number(value.toFixed(digits))
const say = (text: string) => process.stderr.write(`${new Date().toISOString().slice(11, 19)} ${text}\n`)

const { system, url } = await run(serveSystem(reference))
const count = async (table: string) =>
  Number((await system.database.sql.unsafe(`select count(*)::int as n from ${table}`))[0]!["n"])
const post = async (path: string, values: ReadonlyArray<object>): Promise<void> => {
  const headers = { "content-type": "application/x-ndjson", prefer: "return=minimal" }
  const body = values.map((value) => JSON.stringify(value)).join("\n")
  const response = await fetch(url + path, { method: "POST", headers, body })
  if (response.status !== 202) throw new Error(`${response.status}: ${await response.text()}`)
  await response.arrayBuffer()
}
const payment = (id: string, entity: string, amount: number) => ({
  type: "payment",
  event_id: id,
  entity_id: entity,
  amount,
  currency: "EUR",
  fee: 1,
  occurred_at: Date.now(),
  tenant: "ua"
})
let sent = 0
/** Sends payments, one after the other of each key; one in a hundred becomes an alert. */
const send = (size: number): Promise<void> =>
  post(
    "/v1/events",
    Array.from({ length: size }, () => {
      const i = sent++
      return payment(`p-${i}`, `k-${i % keys}`, i % 100 === 0 ? 1_000 : 10)
    })
  )

say(`a table of ${rows} rows, ${deadLetters} dead letters`)
const [{ schema } = { schema: "signals_v1" }] = await system.database.sql<Array<{ schema: string }>>`
  select table_schema as schema from information_schema.tables where table_name = 'alerts' and table_schema like 'signals%'`
await system.database.sql.unsafe(`
  insert into ${schema}.alerts (alert_id, entity_id, score, threshold, segment, occurred_at, tenant)
  select 'a-' || n, 'k-' || n % ${keys}, n % 5000, 150, 'unknown', now() - n * interval '1 second', 'ua' from generate_series(1, ${rows}) n`)
await system.database.sql.unsafe(`analyze ${schema}.alerts`)
// twice such an amount is no number
const heavy = Array.from({ length: 100 }, (_, i) => `heavy-${i}`)
await post(
  "/v1/events?topic=features.entity.v1",
  heavy.map((entity) => ({ entity_id: entity, risk_weight: 2, threshold: 900, segment: "heavy" }))
)
// each is followed by one that succeeds: a partition in which all fail halts
for (let i = 0; i < deadLetters; i += 1_000)
  await post(
    "/v1/events",
    Array.from({ length: 2 * Math.min(1_000, deadLetters - i) }, (_, at) =>
      payment(`d-${2 * i + at}`, heavy[Math.floor(at / 2) % heavy.length]!, at % 2 === 0 ? 1.7e308 : 10)
    )
  )
await eventually(async () => (await count("millrace.dead_letters")) >= deadLetters)

let isOver = false
/** Sends `rate` events a second, in ten requests. What a busy machine is late with by more than a second is left out, and the rate that was reached printed. */
const feed = async () => {
  for (let due = performance.now(); ; due += 100) {
    const wait = due - performance.now()
    if (wait > 0) await sleep(wait)
    if (wait < -1_000) due = performance.now()
    if (isOver) return
    await send(Math.round(rate / 10))
  }
}
feed().catch((error: unknown) => {
  if (isOver) return
  say(String(error))
  process.exit(1)
})

const metricsOf = async (session: CDPSession): Promise<Readonly<Record<string, number>>> => {
  const { metrics } = await session.send("Performance.getMetrics")
  return Object.fromEntries(metrics.map(({ name, value }) => [name, value]))
}
interface Panel {
  readonly link: string
  readonly page: Page
  readonly session: CDPSession
}
const openPanel = async (browser: Browser, link: string): Promise<Panel> => {
  const { page } = await openConsole(browser, url, { viewport: { width: 1280, height: 800 } })
  const session = await page.context().newCDPSession(page)
  await session.send("Performance.enable", { timeDomain: "threadTicks" })
  await show(page, link)
  return { link, page, session }
}
/** The memory of a page after a collection, and its elements. */
const memoryOf = async ({ session }: Panel) => {
  await session.send("HeapProfiler.collectGarbage")
  const { JSHeapUsedSize = 0, Nodes = 0 } = await metricsOf(session)
  return { heapMiB: rounded(JSHeapUsedSize / 1_048_576, 2), nodes: Nodes }
}
/** Milliseconds of main-thread time a second: of all tasks, and of scripts, styles and layout in them. */
const timesOf = async (panels: ReadonlyArray<Panel>) => {
  const before = await Promise.all(panels.map(({ session }) => metricsOf(session)))
  const start = performance.now()
  await sleep(seconds * 1_000)
  const after = await Promise.all(panels.map(({ session }) => metricsOf(session)))
  const passed = (performance.now() - start) / 1_000
  return panels.map(({ link }, i) => {
    const of = (name: string) => rounded((((after[i]![name] ?? 0) - (before[i]![name] ?? 0)) * 1_000) / passed)
    return {
      link,
      task: of("TaskDuration"),
      script: of("ScriptDuration"),
      layout: of("LayoutDuration"),
      style: of("RecalcStyleDuration")
    }
  })
}
/** From the navigation, without a cache, to the first number of the overview: milliseconds. */
const firstNumber = async (browser: Browser): Promise<number> => {
  const context = await browser.newContext({ locale: "en-US" })
  await context.addInitScript(`
    const look = () => {
      const found = [...document.querySelectorAll(".figure .value")].some((one) => /[0-9]/.test(one.textContent))
      if (found) globalThis.firstNumber = performance.now()
      else requestAnimationFrame(look)
    }
    look()`)
  const page = await context.newPage()
  await page.goto(url)
  await eventually(() => page.evaluate<boolean>("globalThis.firstNumber !== undefined"))
  const found = await page.evaluate<number>("globalThis.firstNumber")
  await context.close()
  return Math.round(found)
}
/** Opens a page, and says how long that takes, and how much it asks for. */
const opened = async (page: Page, link: string) => {
  let bytes = 0
  let largest = 0
  const note = async (response: { body: () => Promise<Buffer>; headers: () => Record<string, string> }) => {
    if (response.headers()["content-type"]?.includes("event-stream")) return
    const size = await response.body().then(
      ({ length }) => length,
      () => 0
    )
    bytes += size
    largest = Math.max(largest, size)
  }
  page.on("response", note)
  const start = performance.now()
  await show(page, link)
  const ms = Math.round(performance.now() - start)
  page.off("response", note)
  return { link, ms, requests: `${rounded(bytes / 1_024)} KiB, the largest ${rounded(largest / 1_024)} KiB` }
}

const browser = await launchChromium()
try {
  await sleep(5_000)
  const firsts: Array<number> = []
  for (let i = 0; i < 5; i++) firsts.push(await firstNumber(browser))
  say(`first number: ${firsts.join(", ")} ms`)

  const { close, page } = await openConsole(browser, url, { viewport: { width: 1280, height: 800 } })
  const pages = []
  for (const link of [
    ...routes.map((name) => `#/${name}`),
    "#/tables/alerts",
    "#/tables/alerts?order=score.desc",
    "#/tables/alerts?entity_id=k-77",
    "#/tables/entity_activity",
    "#/windows/entity_activity?entity_id=k-77",
    "#/events?topic=events.raw.v1",
    "#/dead-letters?kind=projection"
  ]) {
    await show(page, "#/send")
    pages.push(await opened(page, link))
    say(JSON.stringify(pages.at(-1)))
  }
  await close()

  const panels = []
  for (const link of [
    "#/overview",
    "#/pipeline",
    "#/live?topic=events.raw.v1",
    "#/live?topic=signals.scores.v1",
    "#/windows/entity_activity?entity_id=k-77",
    "#/tables/alerts?order=occurred_at.desc",
    "#/events?topic=events.raw.v1",
    "#/topics",
    "#/dead-letters",
    "#/versions"
  ])
    panels.push(await openPanel(browser, link))
  await sleep(10_000)
  const [sentBefore, began] = [sent, performance.now()]
  const times = await timesOf(panels)
  for (const one of times) say(JSON.stringify(one))
  const sum = rounded(times.reduce((total, { task }) => total + task, 0))
  say(`all ${times.length} at the same time: ${sum} ms a second`)

  const memory: Record<string, Array<number>> = {}
  for (let minute = 0; minute <= minutes; minute++) {
    if (minute > 0) await sleep(60_000)
    for (const panel of panels) {
      const { heapMiB, nodes } = await memoryOf(panel)
      ;(memory[panel.link] ??= []).push(heapMiB)
      if (minute % 5 === 0 || minute === minutes) say(`minute ${minute}: ${panel.link} ${heapMiB} MiB, ${nodes} nodes`)
    }
  }
  const last = minutes > 0 ? await timesOf(panels) : times
  for (const panel of panels) await settled(panel.page)
  const end = await run(system.log.bounds("events.raw.v1"))
  process.stdout.write(
    `${JSON.stringify({ rate, events: end.reduce((total, { end }) => total + end, 0), reached: Math.round(((sent - sentBefore) * 1_000) / (performance.now() - began)), firstNumberMs: firsts, pages, times, allMsPerSecond: sum, minutes, memory, timesAtTheEnd: last })}\n`
  )
} finally {
  isOver = true
  await browser.close()
  await Effect.runPromise(Scope.close(scope, Exit.void))
}
process.exit()
