// The pages of one key, of events and of explanations in Chromium, on the reference application with flights.
import { afterAll, beforeAll, expect, test } from "vitest"
import { type ConsoleSystem, consoleSystem } from "../../support/console-system.ts"
import { reference } from "../../support/http.ts"
import { needing } from "../../support/stack.ts"

const suite = await needing("chromium")
const noon = 1_357_041_600_000
const markup = `<img src=x onerror="document.title='taken'"><b>"'&`
const flight = (id: string, entity: string, amount: number, minutes: number, tenant = "ua") => ({
  type: "flight.departed",
  event_id: id,
  entity_id: entity,
  amount,
  occurred_at: noon + minutes * 60_000,
  tenant,
  attributes: { flight: `UA${id}`, origin: "EWR", dest: "BOS", delay: amount }
})
const principal = (name: string, scopes: ReadonlyArray<"ingest" | "read" | "operate">, tenant?: string) => ({
  name,
  tenant,
  scopes: new Set(scopes)
})
let running: ConsoleSystem

suite("the page of a key", () => {
  beforeAll(async () => {
    running = await consoleSystem(reference, {
      mr_ann: principal("ann", ["ingest", "read", "operate"]),
      mr_dl: principal("dl", ["read"], "dl")
    })
    const token = await running.send([
      flight("1", "N1", 10, 0),
      flight("2", "N1", 2_000, 1),
      flight("x", markup, 3_000, 1),
      flight("3", "N1", 30, 2),
      flight("d", "N9", 4_000, 2, "dl")
    ])
    await running.processed("alerts", token)
  }, 120_000)
  afterAll(() => running?.stop())

  test("has the events of the key at the left, its rows at the right, and the slider shows what each row was", async () => {
    const { close, errors, page, show } = await running.open("mr_ann")
    await show("entity/N1")
    const events = page.getByRole("region", { name: "Events" })
    const hour = page.locator("article", { hasText: "1h" })
    await hour.getByText("2040").waitFor()
    // without a record of other keys, and with those that follow from them
    expect(await events.locator("li", { hasText: "flight.departed" }).count()).toBe(3)
    expect(await events.textContent()).not.toContain("N9")
    // the row of the alert is of the key though its own key is another
    const alert = page.locator("section", { has: page.getByRole("heading", { name: "alerts" }) }).locator("article")
    await alert.waitFor()
    await page.getByRole("heading", { name: "What is not known" }).waitFor()
    // back to the first flight: one event in the window, and no alert yet
    await events.locator("li", { hasText: "flight.departed" }).last().getByRole("button").first().click()
    await hour.getByText("created").waitFor()
    expect(await hour.textContent()).toContain("score_sum10")
    expect(await alert.count()).toBe(0)
    // the next one changes it, and says what it was
    await page.getByRole("button", { name: "Later" }).click()
    await hour.getByText("changed").waitFor()
    expect(await hour.locator("dd.mark").allTextContents()).toEqual(["1 2", "0 1", "10 2010", "10 2000"])
    expect(await alert.textContent()).toContain("created")
    // the address names the position: it can be sent to somebody
    const address = page.url()
    expect(address).toContain("at=events.raw.v1")
    await show("overview")
    await page.goto(address)
    await hour.getByText("changed").waitFor()
    // by keyboard alone
    await page.getByRole("slider").focus()
    await page.keyboard.press("ArrowLeft")
    await hour.getByText("created").waitFor()
    await page.keyboard.press("End")
    await hour.getByText("2040").waitFor()
    expect(errors).toEqual([])
    await close()
  })

  test("what is not known is said: rows that no replay gives, and only what is there now", async () => {
    const { close, page, show } = await running.open("mr_ann")
    await show("entity/N1")
    const unknown = page.getByRole("region", { name: "What is not known" })
    await unknown.getByText("only the partitions of this key were replayed").waitFor()
    await unknown.getByRole("button", { name: "Replay all partitions" }).click()
    await unknown.getByText("only the partitions of this key were replayed").waitFor({ state: "hidden" })
    await running.system.database.sql`update signals_v1.entity_activity set events = 99 where entity_id = 'N9'`
    await show("entity/N9")
    await unknown.getByText(/a replay gives other values than the database has/).waitFor()
    await page.getByText("A replay gives another row, so its past is not shown.").first().waitFor()
    await show("entity/nobody")
    await page.getByText("Nothing of nobody was found").waitFor()
    await close()
  })

  test("a key of markup is text, and a credential of a tenant sees its own rows as they are now", async () => {
    const ann = await running.open("mr_ann")
    await ann.show(`entity/${encodeURIComponent(markup)}`)
    await ann.page.getByRole("region", { name: "Events" }).locator("li", { hasText: "flight.departed" }).waitFor()
    expect(await ann.page.locator("main img, main b").count()).toBe(0)
    expect(await ann.page.title()).toContain("Millrace")
    expect(ann.errors).toEqual([])
    await ann.close()
    const tenant = await running.open("mr_dl")
    await tenant.show("entity/N9")
    await tenant.page.getByText("needs a credential with the scope operate").waitFor()
    await tenant.page.locator("article", { hasText: "threshold" }).first().waitFor()
    await tenant.show("entity/N1")
    await tenant.page.getByText("Nothing of N1 was found").waitFor()
    await tenant.close()
  })

  test("events are found by key, type and position, and shown decoded, raw and as a request; a page leads to the next", async () => {
    const { close, errors, page, show } = await running.open("mr_ann")
    await show("events?topic=events.raw.v1")
    await page.getByText("12 partitions, by the time").waitFor()
    expect(await page.locator("tbody tr").count()).toBe(5)
    await page.getByLabel("Key", { exact: true }).fill("N1")
    await page.getByLabel("Key", { exact: true }).press("Enter")
    await page.locator("p", { hasText: /3 records found; looked at \d+ positions?/ }).waitFor()
    expect(await page.locator("tbody tr").count()).toBe(3)
    await page.locator("tbody tr").last().getByRole("link").first().click()
    const dialog = page.getByRole("dialog")
    await dialog.getByText('"flight": "UA1"').waitFor()
    await dialog.getByRole("button", { name: "Raw" }).click()
    await dialog.getByText('"flight":"UA1"', { exact: false }).first().waitFor()
    expect(await dialog.textContent()).toContain("curl -X POST")
    // the record has an address of its own, and closing it keeps the search
    expect(page.url()).toMatch(/at=\d+%3A\d+/)
    await page.keyboard.press("Escape")
    await dialog.waitFor({ state: "detached" })
    expect(page.url()).toContain("key=N1")
    await page.getByLabel("Type").selectOption("flight.cancelled")
    await page.getByText("There is none").waitFor()
    expect(errors).toEqual([])
    await close()
  })

  test("a row is explained by one click from its key: each event with what it changed, and what a replay gives", async () => {
    const { close, errors, page, show } = await running.open("mr_ann")
    await show("entity/N1")
    await page.locator("article", { hasText: "1h" }).getByRole("link", { name: "Why?" }).click()
    await page.getByText("a replay gives the same row").waitFor()
    const events = page.locator("li.event")
    expect(await events.count()).toBe(3)
    expect(await events.first().locator("dd.mark").allTextContents()).toEqual(["2 3", "2010 2040"])
    await events.first().getByRole("button", { name: "Its data" }).click()
    await events.first().getByText("What the handler asked for").waitFor()
    await events.first().getByRole("link", { name: "N1" }).click()
    await page.getByRole("region", { name: "Events" }).waitFor()
    expect(errors).toEqual([])
    await close()
  })

  test("keys with spaces at their ends, of several lines, or with what addresses take apart are seen, and their links lead to them", async () => {
    const shown = { " a b ": '" a b "', "a/b%2F?#&": "a/b%2F?#&", "two\nlines": String.raw`"two\nlines"` }
    const token = await running.send(
      Object.keys(shown).map((entity) => ({
        type: "payment",
        event_id: `of ${entity}`,
        entity_id: entity,
        amount: 80.60000000000001,
        currency: "EUR",
        fee: 1,
        occurred_at: 1_357_035_420_000,
        tenant: "ua"
      }))
    )
    await running.processed("entity_activity", token)
    const { close, errors, page, show } = await running.open("mr_ann")
    for (const [key, text] of Object.entries(shown)) {
      await show("events?topic=events.raw.v1&type=payment")
      await page.getByRole("link", { name: text, exact: true }).first().click()
      await page.getByRole("heading", { level: 1, name: `Entity / ${text}`, exact: true }).waitFor()
      // the same number as on the other pages, without its rounding
      const sum = page.locator("article dd", { hasText: /^80\.6$/ }).first()
      await sum.waitFor()
      expect(decodeURIComponent(page.url().split("/").at(-1)!), text).toBe(key)
    }
    await show('windows/entity_activity?keys=[[" a b "]]')
    await page.getByRole("checkbox", { name: '" a b "', exact: true }).waitFor()
    await page.getByRole("cell", { name: "80.6", exact: true }).first().waitFor()
    expect(errors).toEqual([])
    await close()
  })
})
