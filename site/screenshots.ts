// `npm run docs:screenshots`: pictures of the console's pages for docs/guide/console.md, of the reference application while January's flights come in.
import { spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, rmSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { parseArgs } from "node:util"
import type { Browser, Page } from "playwright-core"
import { launchChromium } from "./chromium.ts"

const root = join(import.meta.dirname, "..")
const usage = `npm run docs:screenshots -- [--out docs/guide/console] [--only NAME] [--dark] [--width 1280] [--seconds 45]

  --out      the folder of the pictures
  --only     the picture of one page
  --dark     all of them in dark, too; else only the first is
  --width    of the window; 360 is a phone
  --seconds  for how long flights come in before the first picture
`
const { values } = parseArgs({
  options: {
    out: { type: "string", default: "docs/guide/console" },
    only: { type: "string" },
    dark: { type: "boolean", default: false },
    width: { type: "string", default: "1280" },
    seconds: { type: "string", default: "45" },
    help: { type: "boolean", default: false }
  }
})
const wait = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A system with flights that come in, and its address. */
const start = async (data: string) => {
  const flights = ["planes", "2013-01"].map((name) => join(root, `projections/flights/${name}.ndjson.gz`))
  const args = [
    "dev",
    "--data",
    data,
    "--port",
    "0",
    "--features",
    flights[0]!,
    "--input",
    flights[1]!,
    "--speed",
    "60"
  ]
  const environment = Object.entries(process.env).filter(([name]) => !name.startsWith("MILLRACE_"))
  const child = spawn(process.execPath, [join(root, "bin/millrace.mjs"), ...args], {
    cwd: root,
    env: { ...Object.fromEntries(environment), NO_COLOR: "1", MILLRACE_ESCALATE_AFTER_MS: "30000" },
    stdio: ["ignore", "pipe", "inherit"]
  })
  let output = ""
  child.stdout.on("data", (chunk: Buffer) => (output += chunk.toString()))
  for (let i = 0; i < 600 && !/http:\/\/[\w.]+:\d+/.test(output) && child.exitCode === null; i++) await wait(100)
  const url = /http:\/\/[\w.]+:\d+/.exec(output)?.[0]
  if (url === undefined) throw new Error(`the application did not start: ${output}`)
  return { url, stop: () => new Promise((resolve) => (child.once("close", resolve), child.kill("SIGINT"))) }
}
const post = async (url: string, body: unknown) => {
  const headers = { "content-type": "application/json", "idempotency-key": crypto.randomUUID() }
  const response = await fetch(url, { method: "POST", headers, body: JSON.stringify(body) })
  if (!response.ok) throw new Error(`${url} answers ${response.status}: ${await response.text()}`)
}
interface Alert {
  readonly alert_id: string
  readonly entity_id: string
}
/** What flights alone do not bring: an answered case, events that fail, and a build beside the live one. Returns what the pictures are about. */
const furnish = async (url: string) => {
  const page = (await (await fetch(`${url}/v1/views/alerts?order=score.desc&limit=3`)).json()) as {
    readonly rows: ReadonlyArray<Alert>
  }
  const [first, second] = page.rows
  if (first === undefined || second === undefined) throw new Error("there are no alerts yet; give it more --seconds")
  const at = Date.now()
  await post(`${url}/v1/aggregates/alert-case/${first.alert_id}/commands/acknowledge`, { at, by: "ada" })
  await post(`${url}/v1/aggregates/alert-case/${first.alert_id}/commands/resolve`, { at, resolution: "fixed" })
  // scores that no number holds
  const payment = { type: "payment", amount: 1.7e308, currency: "EUR", fee: 1, occurred_at: at, tenant: "ua" }
  for (const [i, entity] of ["N102UW", "N103US", "N102UW", "N104UW"].entries())
    await post(`${url}/v1/events`, { ...payment, event_id: `p-${i}`, entity_id: entity })
  await post(`${url}/v1/operations/projections/signals/rebuild`, {})
  return first
}
/** The addresses of the pictures, by their names. */
const linksOf = ({ alert_id: id, entity_id: entity }: Alert): Readonly<Record<string, string>> => ({
  overview: "overview",
  pipeline: "pipeline",
  live: "live?topic=signals.scores.v1&from=earliest",
  windows: "windows/entity_activity",
  events: "events?topic=events.raw.v1",
  entity: `entity/${entity}`,
  tables: "tables/alerts?order=score.desc",
  explain: `explain?table=alerts&alert_id=${id}`,
  send: "send?type=flight.departed",
  aggregates: `aggregates/alert-case/${id}`,
  topics: "topics",
  versions: "versions",
  "dead-letters": "dead-letters"
})
const take = async (page: Page, file: string) => {
  const session = await page.context().newCDPSession(page)
  const { data } = await session.send("Page.captureScreenshot", { format: "webp", quality: 72 })
  writeFileSync(file, Buffer.from(data, "base64"))
  await session.detach()
}
const pictures = async (
  browser: Browser,
  url: string,
  links: Readonly<Record<string, string>>,
  colorScheme: "light" | "dark"
) => {
  const width = Number(values.width)
  const options = {
    viewport: { width, height: width < 700 ? 740 : 800 },
    colorScheme,
    locale: "en-GB",
    timezoneId: "Europe/Berlin"
  }
  const context = await browser.newContext(options)
  const page = await context.newPage()
  page.setDefaultTimeout(30_000)
  await page.goto(url)
  for (const [name, link] of Object.entries(links)) {
    if (values.only !== undefined && values.only !== name) continue
    await page.evaluate(`location.hash = ${JSON.stringify(`#/${link}`)}`)
    await page.getByRole("heading", { level: 1 }).waitFor()
    await page
      .locator("main", { hasText: /Loading…|is searched…|is replayed:|is computed…/ })
      .waitFor({ state: "hidden" })
    // rates need two readings, and charts some more
    await wait(name === "overview" ? 35_000 : 3_000)
    await take(page, join(root, values.out, `${name}${colorScheme === "dark" ? "-dark" : ""}.webp`))
  }
  await context.close()
}
const main = async () => {
  if (values.help) return void process.stdout.write(usage)
  const data = mkdtempSync(join(tmpdir(), "millrace-screenshots-"))
  const folder = join(root, values.out)
  mkdirSync(folder, { recursive: true })
  const { stop, url } = await start(join(data, "data"))
  const browser = await launchChromium()
  try {
    await wait(Number(values.seconds) * 1_000)
    const links = linksOf(await furnish(url))
    await wait(5_000)
    await pictures(browser, url, links, "light")
    await pictures(browser, url, values.dark ? links : { overview: links["overview"]! }, "dark")
    const sizes = readdirSync(folder).map((name) => statSync(join(folder, name)).size)
    process.stdout.write(
      `${sizes.length} pictures, ${Math.round(sizes.reduce((sum, size) => sum + size, 0) / 1_024)} KiB\n`
    )
  } finally {
    await browser.close()
    await stop()
    rmSync(data, { recursive: true, force: true })
  }
}
await main()
