// What `millrace config` prints: each variable with its value and where it came from, and no secret.
import { readFileSync } from "node:fs"
import { expect, test } from "vitest"
import { settingsIn } from "../../../src/cli/settings.ts"
import { variables } from "../../../src/cli/variables.ts"

test("each variable has a line; one that is empty or not set has its default", () => {
  const settings = settingsIn({ MILLRACE_HTTP_HOST: "", MILLRACE_KAFKA_COMPRESSION: "zstd" })
  expect([...settings.map(({ name }) => name), "MILLRACE_SETTINGS"]).toEqual(variables)
  const of = (name: string) => settings.find((one) => one.name === name)
  expect(of("MILLRACE_HTTP_HOST")).toMatchObject({ value: "127.0.0.1", from: "default" })
  expect(of("MILLRACE_KAFKA_COMPRESSION")).toMatchObject({ value: "zstd", from: "environment" })
  expect(of("MILLRACE_KAFKA_PASSWORD")).toMatchObject({ value: null, from: "default" })
})
test("no value of a secret is shown, and no password of a URL", () => {
  const names = ["MILLRACE_KAFKA_PASSWORD", "MILLRACE_PULSAR_TOKEN", "MILLRACE_API_KEY", "MILLRACE_KEY_ENCRYPTION_KEY"]
  const env = {
    ...Object.fromEntries(names.map((name) => [name, "word"])),
    MILLRACE_DATABASE_URL: "postgres://app:s3cret-w@db/orders"
  }
  const shown = settingsIn(env).filter(({ from }) => from === "environment")
  expect(shown.map(({ value }) => value).toSorted()).toEqual([
    "***",
    "***",
    "***",
    "***",
    "postgres://app:***@db/orders"
  ])
})
test("the defaults are those of the page of the configuration", () => {
  const page = readFileSync(new URL("../../../docs/reference/configuration.md", import.meta.url), "utf8")
  const rows = [...page.matchAll(/^\| `(MILLRACE_\w+)` *\|.*\| ([^|]*?) *\|$/gm)].map(
    ([, name, text]) => [name!, text!.replaceAll("`", "")] as const
  )
  expect(rows.length).toBe(variables.length)
  const settings = new Map(settingsIn({}).map(({ name, value }) => [name, value]))
  // a row without a default is explained above its table, or nothing holds then
  const differ = rows.filter(([name, text]) => !["", "none", "not set"].includes(text) && settings.get(name) !== text)
  expect(differ).toEqual([])
})
