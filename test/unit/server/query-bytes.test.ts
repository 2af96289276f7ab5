// Encoded bytes in a query that are no UTF-8.
import { expect, onTestFinished, test } from "vitest"
import { start } from "../../support/http.ts"

test("a query that is no UTF-8 gets 400 `invalid_url`; one that is, or that has a percent sign alone, is read", async () => {
  const server = await start()
  onTestFinished(() => server.stop())
  const ask = async (key: string) => {
    const response = await fetch(`${server.url}/v1/topics/alerts.v1/records?key=${key}`)
    return [response.status, ((await response.json()) as { error?: { code: string } }).error?.code]
  }
  for (const key of ["%ff", "%ED%A0%80", "a%C3", "%C3a"]) expect(await ask(key), key).toEqual([400, "invalid_url"])
  for (const key of ["%C3%A9", "a", "100%", "%F0%9F%98%80"]) expect(await ask(key), key).toEqual([200, undefined])
})
