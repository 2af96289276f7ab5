// What the console does, in Chromium, on a running shop: each action does what its command does. The database is compared afterwards, and commands
// are run as the page shows them.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { Browser, Locator, Page } from "playwright-core"
import { afterAll, beforeAll, expect, test } from "vitest"
import { chromium, goTo } from "../../support/browser/console.ts"
import * as Cli from "../../support/cli.ts"
import { ownCommand, shell } from "../../support/shell.ts"
import { order } from "../../support/shop-order.ts"
import { needing } from "../../support/stack.ts"
import { removed } from "../../support/removed.ts"

const suite = await needing("chromium")
const scope = Scope.makeUnsafe()
const directory = mkdtempSync(join(tmpdir(), "millrace-actions-"))
const fixed = join(directory, "fixed")
const root = join(import.meta.dirname, "../../..")
const shared = ["--data", join(directory, "data"), "--config", join(root, "test/support/shop.config.ts")]
const environment = { SHOP_FIXED: fixed }
const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
let url = ""
let browser: Browser
let page: Page
const errors: Array<string> = []

interface Body {
  readonly accepted: number
  readonly token: string
  readonly rows: ReadonlyArray<{ readonly id: string; readonly units: number }>
  readonly groups: ReadonlyArray<object>
  readonly dead_letters: ReadonlyArray<{ readonly id: number; readonly key: string }>
  readonly dead_letter: { readonly status: string }
  readonly live: number
  readonly events: ReadonlyArray<{ readonly event: Readonly<Record<string, unknown>> }>
}
const call = async (path: string, body?: unknown, headers: Readonly<Record<string, string>> = {}) => {
  const init = {
    method: "POST",
    body: JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers }
  }
  const response = await fetch(url + path, body === undefined ? {} : init)
  return (await response.json()) as Body
}
/** Runs a command as the page shows it, on the shop. Resolves to what it prints. */
const runShown = (text: string) =>
  shell(`${ownCommand(text)} ${shared.slice(0, text.includes(" sql ") ? 2 : 4).join(" ")}`, environment)
const sent = async (...events: ReadonlyArray<object>) => {
  const { accepted, token } = await call("/v1/events", events)
  expect(accepted).toBe(events.length)
  return token
}
const rowOf = async (id: string, token?: string) =>
  (await call(`/v1/views/bought?id=${id}${token === undefined ? "" : `&waitFor=${token}`}`)).rows[0]
const show = (path: string) => goTo(page, url, path)
const dialog = () => page.getByRole("dialog")
const press = (name: string | RegExp, within: Page | Locator = page) =>
  within
    .getByRole("button", { name, ...(typeof name === "string" && { exact: true }) })
    .first()
    .click()
const close = () => press("Close", dialog())
/** The command that is shown last. */
const shownCommand = (within: Locator) => within.locator(".command code").last().textContent()
const field = (name: string) => page.locator(`main [name="${name}"]`)

suite("the console's actions", () => {
  beforeAll(async () => {
    const dev = await run(Cli.start(environment, "dev", ...shared, "--port", "0"))
    url = /http:\S+?:\d+/.exec(await run(dev.said(/POST http:\S+?:\d+/)))![0]
    browser = await run(chromium)
    page = await (await browser.newContext({ locale: "en-US", timezoneId: "UTC" })).newPage()
    page.setDefaultTimeout(20_000)
    page.on("pageerror", (error) => errors.push(error.message))
  }, 120_000)
  afterAll(async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await removed(directory)
    expect(errors).toEqual([])
  })

  test("dead letters are found by their error and retried: those that fail again say why, and those that are processed are in the table", async () => {
    await sent(...["a", "b", "c"].flatMap((name) => [1, 2, 3, 4].map((n) => order(`${name}-${n}`, name, "broken"))))
    await expect
      .poll(() => call("/v1/operations/dead-letters/errors"), { timeout: 15_000 })
      .toMatchObject({
        groups: [
          { error: "RangeError", count: 3 },
          { error: "EarlierParked", count: 9, waits: true }
        ]
      })
    await show("dead-letters")
    const group = page.locator("section.card", { hasText: "RangeError" })
    await group.getByText("3 dead letters, 3 keys").waitFor()
    await group.getByText("9 others wait behind them").waitFor()
    await press("Retry", group)
    await dialog().getByText("It concerns 3 dead letters that are open; 9 more wait behind them").waitFor()
    expect(await shownCommand(dialog())).toContain("curl -X POST")
    await press("Retry", dialog())
    await dialog().getByText("3 failed again").first().waitFor()
    await dialog().getByText("failed again: RangeError: cannot price broken for a").waitFor()
    await close()
    const { dead_letters: again } = await call("/v1/operations/dead-letters?error=RangeError")
    const asked = await call("/v1/operations/dead-letters/outcome", { ids: again.map(({ id }) => id) })
    expect(asked).toMatchObject({ processed: 0, failed_again: 3, waiting: 0, pending: [], not_run: [] })
    expect((await call("/v1/views/bought")).rows).toEqual([])
    // the cause is fixed
    writeFileSync(fixed, "")
    await page.getByRole("link", { name: "RangeError" }).click()
    await page.getByLabel("Choose all of this page").click()
    await press("Retry the 3 chosen")
    const { dead_letters: open } = await call("/v1/operations/dead-letters?error=RangeError")
    expect(await dialog().locator(".command code").first().textContent()).toMatch(/^npx millrace dlq retry( \d+){3}$/)
    await press("Retry the 3 chosen", dialog().locator("footer"))
    await dialog().getByText("9 that waited behind them followed").waitFor()
    await close()
    expect(open).toHaveLength(3)
    expect((await call("/v1/operations/dead-letters/errors")).groups).toEqual([])
    const { rows } = await call("/v1/views/bought?order=id")
    expect(rows.map(({ id }) => id).join(" ")).toBe("a-1 a-2 a-3 a-4 b-1 b-2 b-3 b-4 c-1 c-2 c-3 c-4")
    rmSync(fixed)
  })

  test("a dead letter is discarded from its own page, and its command does the same to another one", async () => {
    const markup = `<img src=x onerror="document.title='taken'">\u001b[31m`
    await sent(order("d-1", markup, "broken"), order("d-2", "dora", "broken"))
    await expect
      .poll(async () => (await call("/v1/operations/dead-letters")).dead_letters.length, { timeout: 15_000 })
      .toBe(2)
    const { dead_letters: found } = await call("/v1/operations/dead-letters")
    const ids = [markup, "dora"].map((key) => found.find((one) => one.key === key)!.id)
    await show(`dead-letters/${ids[0]}`)
    await page.getByText("cannot price broken for <img src=x", { exact: false }).first().waitFor()
    expect(await page.locator("main img").count()).toBe(0)
    // where the handler threw, in the application's own code
    expect(await page.getByText(/^Thrown at/).innerText()).toMatch(/^Thrown at (?:.+ \()?[^()/]\S+\.ts:\d+:\d+\)?$/)
    expect(await runShown((await shownCommand(page.locator("main")))!)).toMatch(/^thrown_at: +\S.*\.ts:\d+:\d+/m)
    await press("Discard")
    await dialog().getByText("It concerns 1 dead letter that is open").waitFor()
    const command = (await dialog().locator(".command code").first().textContent())!
    await press("Discard", dialog().locator("footer"))
    await dialog().getByText("1 dead letter discarded").waitFor()
    await close()
    await page.locator("main .tag", { hasText: "discarded" }).waitFor()
    expect(await runShown(command.replace(String(ids[0]), String(ids[1])))).toContain("1 discarded")
    const states = await Promise.all(ids.map((id) => call(`/v1/operations/dead-letters/${id}`)))
    expect(states.map(({ dead_letter: { status } }) => status)).toEqual(["discarded", "discarded"])
  })

  test("builds are compared with samples side by side, promoted, rolled back and retired; what is refused says why", async () => {
    await sent(order("v-1", "vera"))
    await expect.poll(() => rowOf("v-1")).toMatchObject({ units: 2 })
    await show("versions/buying")
    await press("Rebuild")
    await dialog()
      .getByText(/\d+ events? (is|are) replayed/)
      .waitFor()
    expect(await dialog().locator(".command code").first().textContent()).toBe("npx millrace rebuild buying")
    await press("Rebuild", dialog().locator("footer"))
    await dialog()
      .getByText(/is where the live build is|It runs/)
      .waitFor()
    await close()
    await page.locator("td", { hasText: "candidate" }).waitFor()
    await page.getByText("done", { exact: true }).first().waitFor()
    // a row that somebody has changed by hand differs
    await run(
      Cli.run(
        environment,
        "sql",
        "--write",
        "update buying_v1.bought set units = 9 where id = 'v-1'",
        ...shared.slice(0, 2)
      )
    )
    await press("Compare")
    await press("Compare", dialog().locator("footer"))
    await dialog()
      .getByText(/on the page/)
      .waitFor()
    await close()
    const compared = page.url()
    await page.getByText("Build 2 differs from build 1").waitFor()
    await page.getByRole("row", { name: "units ≠ 9 2" }).waitFor()
    // as the command prints it, also where nothing differs
    for (const name of ["late events", "dead letters"])
      await page.getByRole("row", { name: new RegExp(`^${name}( \\d+){6}$`) }).waitFor()
    // what a job found is there after a reload, too
    await page.reload()
    await page.getByRole("row", { name: "units ≠ 9 2" }).waitFor()
    expect(page.url()).toBe(compared)
    await press("Promote")
    await dialog().getByText("Build 2 could replace build 1; nothing was changed.", { exact: false }).waitFor()
    expect(await dialog().locator(".command code").first().textContent()).toBe("npx millrace promote buying --build 2")
    await press("Promote", dialog().locator("footer"))
    await dialog().getByText("Build 2 is live, in place of build 1.", { exact: false }).waitFor()
    await close()
    expect((await rowOf("v-1"))?.units).toBe(2)
    await press("Roll back")
    await dialog().getByText("Build 1 could replace build 2", { exact: false }).waitFor()
    await press("Roll back", dialog().locator("footer"))
    await dialog().getByText("Build 1 is live", { exact: false }).waitFor()
    await close()
    // its result is below the builds, also when the page is opened anew, and the list of jobs says the same
    const result = page.locator("section.card").getByText("Build 1 is live, in place of build 2.", { exact: false })
    await result.waitFor()
    await show("versions/buying")
    await result.waitFor()
    expect(await page.getByRole("table", { name: "Jobs of buying" }).getByText("running").count()).toBe(0)
    expect((await rowOf("v-1"))?.units).toBe(9)
    expect(await call("/v1/operations/projections/buying")).toMatchObject({ live: 1 })
    // the live build of a configured version cannot be retired
    const retire = page.locator("tr", { hasText: "live" }).first().getByRole("button", { name: "Retire" })
    expect(await retire.isDisabled()).toBe(true)
    expect(await retire.getAttribute("title")).toMatch(/^it is the live build, and build 2 is there/)
    // an answer that is an error can be tried again
    await page.route(/promote\?dryRun/, (route) => route.fulfill({ status: 500, body: "broken" }))
    await press("Promote")
    await dialog().getByText("broken").waitFor()
    await page.unroute(/promote\?dryRun/)
    await press("Try again", dialog().locator("footer"))
    await dialog().getByText("Build 2 could replace build 1", { exact: false }).waitFor()
    expect(await dialog().locator(".problem").count()).toBe(0)
    await press("Cancel", dialog().locator("footer"))
  })

  test("a command is a form of its schema, nested fields too; a rejection has its fields, a conflict is resolved, and a repeated answer is marked", async () => {
    await show("aggregates/basket/b-1?command=reserve")
    await press("Fill in a sample")
    await field("lines.0.sku").fill("")
    await press("Send")
    await page.getByRole("alert").getByText("lines.0.sku is empty").waitFor()
    await field("lines.0.sku").fill("pen")
    await field("lines.0.count").fill("2")
    await press("Add one")
    await field("lines.1.sku").fill("ink")
    await field("lines.1.count").fill("1")
    await field("payment.last4").fill("0042")
    await field("cents").fill("9007199254740993")
    await field("note").fill("for Ada")
    await page.getByLabel("labels: a value, or none").selectOption("set")
    await page.locator("fieldset", { hasText: "labels" }).getByRole("button", { name: "Add one" }).last().click()
    await field("labels key 1").fill("colour")
    await field("labels.0").fill("7")
    // the server's reason is at its field
    await field("lines.1.count").fill("0")
    await press("Send")
    await page.getByRole("alert").getByText("lines.1.count", { exact: false }).waitFor()
    expect(await field("lines.1.count").getAttribute("aria-invalid")).toBe("true")
    await field("lines.1.count").fill("1")
    await press("Send")
    await page.getByText("reserved: the version is 1.").waitFor()
    const { events } = await call("/v1/aggregates/basket/b-1/events")
    expect(events[0]?.event).toMatchObject({
      lines: [
        { sku: "pen", count: 2 },
        { sku: "ink", count: 1 }
      ],
      payment: { kind: "card", last4: "0042" },
      cents: "9007199254740993",
      note: "for Ada",
      labels: { colour: 7 }
    })
    // below the answer is what was sent, which changes nothing when it is repeated: as a command, as a request and by the button
    const commandText = () =>
      page.locator("main .command code", { hasText: "aggregate send" }).first().textContent() as Promise<string>
    await page.getByText("What was sent, with its key", { exact: false }).waitFor()
    const reserved = await commandText()
    await runShown(reserved)
    const curl = (await page.locator("main .command code", { hasText: "curl -X POST" }).last().textContent())!
    expect(JSON.parse(await shell(`${curl} -sS`))).toMatchObject({ repeated: true, version: 1 })
    await press("Send it again with the same key")
    await page.getByText("repeated: answered before").waitFor()
    expect(await commandText()).toBe(reserved)
    expect((await call("/v1/aggregates/basket/b-1/events")).events).toHaveLength(1)
    await press("Start another one")
    const keyOf = (text: string) => /--command-id (\S+)/.exec(text)?.[1]
    expect(keyOf(await commandText())).not.toBe(keyOf(reserved))
    // two more lines would be too many
    await press("Send")
    await page.getByRole("alert").getByText("Rejected: TooMany").waitFor()
    await page.getByRole("row", { name: "most 3" }).waitFor()
    // another writer is first; another command has another key
    const rejected = await commandText()
    await press("Remove the last")
    await page.getByText("The next one, which was not sent yet:").waitFor()
    await page.getByRole("checkbox").first().check()
    const command = await commandText()
    expect(command).toContain("--expected 1")
    expect(keyOf(command)).not.toBe(keyOf(rejected))
    await call("/v1/aggregates/basket/b-1/commands/reserve", {
      ...events[0]?.event,
      lines: [{ sku: "cap", count: 1 }],
      type: "reserve"
    })
    await press("Send")
    await page.getByRole("alert").getByText("Others were first", { exact: false }).waitFor()
    expect(await commandText()).toBe(command)
    await press("Take the newest version")
    await page.getByText("Only if the version is still 2", { exact: false }).waitFor()
    await press("Send")
    await page.getByRole("alert").getByText("Rejected: TooMany").waitFor()
    // the command that was shown has the key of the one that was sent: it gets the same answer
    await expect(runShown(command)).rejects.toThrow(/rejected reserve: TooMany/)
    await show("aggregates/basket/b-1?version=1")
    await page.getByText("As it was at version 1").waitFor()
    await page.getByText('"reserved": 2').waitFor()
    await show("aggregates")
    await page.getByRole("link", { name: "b-1" }).waitFor()
  })

  test("a stream is archived after it was said what that does, and takes no more commands; its command says that it was archived before", async () => {
    await show("aggregates/basket/b-1")
    await page.getByText("Now, at version 2").waitFor()
    await press("Archive")
    await dialog().getByText("basket b-1, now at version 2, will take no more events").waitFor()
    const command = (await dialog().locator(".command code").first().textContent())!
    expect(await shownCommand(dialog())).toMatch(/^curl -X POST \S+\/aggregates\/basket\/b-1\/archive$/)
    const archive = dialog().locator("footer").getByRole("button", { name: "Archive" })
    expect(await archive.isDisabled()).toBe(true)
    await dialog().locator("[name=confirm]").fill("archive")
    await archive.click()
    await dialog().getByText("basket b-1 is archived; its last version is 2.").waitFor()
    await close()
    await page.getByText("Archived: it takes no more events.", { exact: false }).waitFor()
    await page.locator("main h2 .tag", { hasText: "archived" }).waitFor()
    expect(await page.getByRole("button", { name: "Archive" }).count()).toBe(0)
    expect(await page.getByRole("button", { name: "Send", exact: true }).isDisabled()).toBe(true)
    expect(await call("/v1/aggregates/basket/b-1/events")).toMatchObject({ version: 2, closed: "archived" })
    expect(await runShown(command)).toContain("archived before")
  })

  test("events are sent by a form of nested fields, as JSON and many at once, and each refusal names its field", async () => {
    await show("send?type=ordered")
    await press("Fill in a sample")
    await field("id").fill("s-1")
    await field("customer").fill("sam")
    await field("cents").fill("a lot")
    await press("Send")
    await page.getByRole("alert").getByText("cents a lot does not fit", { exact: false }).waitFor()
    await field("cents").fill("12")
    await page.getByLabel("which").selectOption("cash")
    await press("As JSON")
    const json = JSON.parse(await field("json").inputValue()) as object
    expect(json).toMatchObject({ id: "s-1", payment: { kind: "cash" }, cents: "12", note: null })
    expect(Object.keys(json)).not.toContain("weight")
    // what no form finds: an id that the gateway refuses
    await field("json").fill(JSON.stringify({ ...json, customer: "" }))
    await press("Send")
    await page.getByRole("alert").getByText("customer", { exact: false }).first().waitFor()
    await field("json").fill(JSON.stringify(json))
    await press("As a form")
    const curl = (await shownCommand(page.locator("main")))!
    await press("Send")
    await page.getByText("The log has it: shop.orders").waitFor()
    await expect.poll(() => rowOf("s-1"), { timeout: 15_000 }).toMatchObject({ customer: "sam", cents: "12" })
    expect(JSON.parse(await shell(`${curl} -sS`))).toMatchObject({ accepted: 1 })
    await page.locator("summary", { hasText: "Sent from this tab" }).waitFor()
    // the next one has an id of its own, and is no duplicate
    await press("New id")
    const fresh = await field("id").inputValue()
    expect(fresh).toMatch(/^[\da-f-]{36}$/)
    await page.getByText(`The next one has the id ${fresh}.`).waitFor()
    await press("Send")
    await page.getByText(`id ${fresh}. See it`, { exact: false }).waitFor()
    await expect.poll(() => rowOf(fresh), { timeout: 15_000 }).toMatchObject({ customer: "sam", cents: "12" })
    // its record is printed by the command that the page shows of it
    await page.getByRole("link", { name: "See it" }).click()
    const tail = dialog().locator(".command code", { hasText: "millrace tail" }).first()
    expect(JSON.parse(await runShown((await tail.textContent())!))).toMatchObject({
      topic: "shop.orders",
      value: { id: fresh, customer: "sam" }
    })
    await page.keyboard.press("Escape")
    await show("send?many=1")
    await field("lines").fill(
      `${JSON.stringify(order("s-2", "sue"))}\n\n{"type":"ordered","id":"s-3"}\n${JSON.stringify(order("s-4", "sue"))}`
    )
    await press("Send 3 events")
    await page.getByText("2 events accepted, 1 rejected.").waitFor()
    await page.getByRole("row", { name: /^3 schema_mismatch/ }).waitFor()
    await expect.poll(() => rowOf("s-4"), { timeout: 15_000 }).toMatchObject({ customer: "sue" })
  })

  test("rows are read in pages both ways, filtered and ordered by type, and the SQL that is shown reads the same", async () => {
    const token = await sent(
      ...Array.from({ length: 120 }, (_, i) => order(`t-${String(i).padStart(3, "0")}`, `t${i % 3}`))
    )
    // with all of them: they are in several partitions
    expect(await rowOf("t-119", token)).toMatchObject({ units: 2 })
    await show("tables/bought?id.prefix=t-")
    const first = () => page.locator("main tbody tr td").first().textContent()
    const begins = (id: string) => page.locator("main tbody tr").first().getByText(id).waitFor()
    await begins("t-000")
    await press("Next 50 rows")
    await begins("t-050")
    const middle = page.url()
    await press("Next 50 rows")
    await begins("t-100")
    await press("Previous 50 rows")
    await begins("t-050")
    await press("Previous 50 rows")
    await begins("t-000")
    expect(await page.getByRole("button", { name: "Previous 50 rows" }).count()).toBe(0)
    // a page has an address of its own
    await show(middle.split("#/")[1]!)
    await begins("t-050")
    await press("First rows")
    await begins("t-000")
    await field("column").selectOption("customer")
    await page.locator("main [name=value]").fill("t1")
    await press("Add the filter")
    await begins("t-001")
    await page.getByLabel("Order by id, ascending").click()
    await page.getByLabel("Order by id, descending").click()
    await begins("t-118")
    expect((await first())?.trim()).toBe("t-118")
    await page.getByText("null", { exact: true }).first().waitFor()
    await page.getByLabel("The whole lines").first().click()
    await dialog().getByText('"sku": "pen"').waitFor()
    await page.keyboard.press("Escape")
    const output = await runShown(`${await shownCommand(page.locator("main"))} --format json`)
    const read = (JSON.parse(output) as ReadonlyArray<{ readonly id: string }>).map(({ id }) => id)
    expect(read).toHaveLength(40)
    expect(read[0]).toBe("t-118")
  })
})
