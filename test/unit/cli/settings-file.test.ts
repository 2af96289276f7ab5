// The file of settings: what is read of it, what is refused with what to do, secrets in files of their own, and the schema for editors.
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, describe, expect, test } from "vitest"
import { loadSettings } from "../../../src/cli/settings-file.ts"
import { settingsSchema } from "../../../src/cli/settings-schema.ts"
import { settingsIn } from "../../../src/cli/settings.ts"
import { settingTable } from "../../../src/cli/setting-table.ts"

const folder = mkdtempSync(join(tmpdir(), "millrace-settings-"))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const file = (name: string, content: unknown, mode = 0o600) => {
  const path = join(folder, name)
  writeFileSync(path, typeof content === "string" ? content : JSON.stringify(content))
  chmodSync(path, mode)
  return path
}
const load = (content: unknown, env: Record<string, string | undefined> = {}, mode?: number) => {
  const path = file("settings.json", content, mode)
  return { env, path, ...loadSettings(["--settings", path], env) }
}

test("values of the file are set as variables, each type in its form, and paths from the file's folder", () => {
  const { env, failure, path } = load({
    $schema: "./millrace.schema.json",
    http: { port: 7171, hosts: ["a.example", "b.example"], tls: { cert: "tls/cert.pem" }, auth: "required" },
    kafka: { brokers: ["a:1", "b:2"], tls: { enabled: true } },
    jwt: { tenantClaim: "" }
  })
  expect(failure).toBeUndefined()
  expect(env).toEqual({
    MILLRACE_HTTP_PORT: "7171",
    MILLRACE_HTTP_HOSTS: "a.example,b.example",
    MILLRACE_HTTP_TLS_CERT: join(path, "../tls/cert.pem"),
    MILLRACE_HTTP_AUTH: "required",
    MILLRACE_KAFKA_BROKERS: "a:1,b:2",
    MILLRACE_KAFKA_TLS: "true",
    MILLRACE_JWT_TENANT_CLAIM: ""
  })
})
test("the environment wins over the file; an empty variable does not, unless empty means something", () => {
  const { env, from } = load(
    { http: { host: "10.0.0.1", port: 1 }, jwt: { tenantClaim: "org" }, kafka: { compression: "zstd" } },
    { MILLRACE_HTTP_HOST: "0.0.0.0", MILLRACE_KAFKA_COMPRESSION: "", MILLRACE_JWT_TENANT_CLAIM: "" }
  )
  const of = (name: string) => {
    const { from: source, value } = settingsIn(env, from).find((one) => one.name === name)!
    return [value, source]
  }
  expect(of("MILLRACE_HTTP_HOST")).toEqual(["0.0.0.0", "environment"])
  expect(of("MILLRACE_KAFKA_COMPRESSION")).toEqual(["zstd", "file"])
  expect(of("MILLRACE_JWT_TENANT_CLAIM")).toEqual(["", "environment"])
  expect(of("MILLRACE_HTTP_PORT")).toEqual(["1", "file"])
})
test("the file is that of --settings, else of MILLRACE_SETTINGS, else millrace.json beside the application", () => {
  const [a, b] = [file("a.json", { http: { port: 1 } }), file("b.json", { http: { port: 2 } })]
  const beside = file("millrace.json", { http: { port: 3 } })
  const fileOf = (args: ReadonlyArray<string>, env: Record<string, string | undefined> = {}) =>
    loadSettings(args, env).file
  expect(fileOf([`--settings=${a}`], { MILLRACE_SETTINGS: b })).toBe(a)
  expect(fileOf(["start"], { MILLRACE_SETTINGS: b })).toBe(b)
  expect(fileOf(["start", "--config", join(folder, "millrace.config.ts")])).toBe(beside)
  expect(fileOf(["sql", "--", "--settings", a])).toBeUndefined()
})

const refusals: ReadonlyArray<readonly [unknown, string, string]> = [
  [{ http: { hots: "x" } }, "http.hots is not a setting", "did you mean http.host?"],
  [{ MILLRACE_HTTP_HOST: "x" }, "MILLRACE_HTTP_HOST is not a setting", "did you mean http.host?"],
  [{ htpp: { host: "x" } }, "htpp is not a setting", "one of"],
  [{ http: { port: "7070" } }, 'http.port is "7070"; it must be a whole number of at least 0', "http.port"],
  [{ http: { port: -1 } }, "http.port is -1; it must be a whole number of at least 0", "http.port"],
  [{ http: { hosts: "a,b" } }, 'http.hosts is "a,b"; it must be an array of texts', "http.hosts"],
  [{ http: { auth: "yes" } }, 'http.auth is "yes"; it must be one of "required", "optional"', "http.auth"],
  [{ http: 7070 }, "http is 7070; it must be an object", "configuration.md"],
  [{ kafka: { password: 5 } }, 'kafka.password is 5; it must be a text, or {"file": "PATH"}', "kafka.password"],
  [{ client: { apiKey: { file: "none" } } }, "the file of client.apiKey", "check that the file exists"],
  ["{ // comment", "is not JSON", "JSON has no comments"]
]
test.each(refusals)("%j is refused: %s", (content, message, advice) => {
  const { env, failure } = load(content)
  expect(failure?.message).toContain(message)
  expect(failure?.try).toContain(advice)
  expect(failure?.exitCode).toBe(2)
  expect(env).toEqual({})
})
test("a file that is named and does not exist is refused", () => {
  expect(loadSettings(["--settings", join(folder, "no.json")], {}).failure?.message).toContain("cannot be read")
})
test("no message shows a secret of the file", () => {
  const texts = [
    load({ database: { url: ["postgres://app:s3cret-w@db/orders"] } }).failure?.message,
    load('{"kafka": {"password": "s3cret-w", }}').failure?.message,
    load({ client: { apiKey: "s3cret-w" } }, {}, 0o644).warnings[0]
  ]
  expect(texts.every((text) => text !== undefined && !text.includes("s3cret-w"))).toBe(true)
})

describe("secrets", () => {
  test("a secret may be in a file of its own, named in the file of settings or by a variable with _FILE", () => {
    const secret = file("password", "pass word\n")
    const inFile = load({ kafka: { password: { file: "password" } } })
    expect(inFile.env).toEqual({ MILLRACE_KAFKA_PASSWORD: "pass word" })
    expect(settingsIn(inFile.env, inFile.from).find(({ name }) => name === "MILLRACE_KAFKA_PASSWORD")).toMatchObject({
      value: "***",
      from: "file",
      file: secret
    })
    const env: Record<string, string | undefined> = { MILLRACE_API_KEY_FILE: secret }
    expect(loadSettings([], env).failure).toBeUndefined()
    expect(env["MILLRACE_API_KEY"]).toBe("pass word")
  })
  test("a variable and its _FILE are not set together", () => {
    const env = { MILLRACE_API_KEY: "a", MILLRACE_API_KEY_FILE: file("key", "b") }
    expect(loadSettings([], env).failure?.message).toBe("MILLRACE_API_KEY and MILLRACE_API_KEY_FILE are both set")
  })
  test.skipIf(process.platform === "win32")("a file with secrets that every user may read is warned about", () => {
    const content = { client: { apiKey: "mr_1" }, database: { url: "postgres://app:s3cret-w@db/orders" } }
    expect(load(content, {}, 0o644).warnings[0]).toContain("which has secrets (client.apiKey, database.url)")
    expect(load(content, {}, 0o640).warnings).toEqual([])
    expect(load({ database: { url: "postgres://app@db/orders" } }, {}, 0o644).warnings).toEqual([])
    file("key", "k")
    expect(load({ client: { apiKey: { file: "key" } } }, {}, 0o644).warnings).toEqual([])
  })
})

const page = readFileSync(new URL("../../../docs/reference/configuration.md", import.meta.url), "utf8")
test("the page has every setting as the table has it: variable, key, meaning, default", () => {
  const rows = [...page.matchAll(/^\| `(MILLRACE_\w+)` *\| ([^|]*?) *\| ([^|]*?) *\| ([^|]*?) *\|$/gm)].map((row) =>
    row.slice(1)
  )
  const plain = (text: string) => text.replaceAll("`", "")
  expect(rows.map(([name, key, text, usual]) => [name, key, text, plain(usual!)])).toEqual(
    settingTable.map(({ default: usual = "", key, text, variable }) => [variable, `\`${key}\``, text, plain(usual)])
  )
})
test("the JSON Schema for editors is that of the table", () => {
  const path = new URL("../../../docs/reference/millrace.schema.json", import.meta.url)
  expect(JSON.parse(readFileSync(path, "utf8"))).toEqual(settingsSchema())
  const keys = (schema: unknown, group = ""): ReadonlyArray<string> =>
    Object.entries((schema as { readonly properties: Readonly<Record<string, object>> }).properties).flatMap(
      ([name, inner]) => ("properties" in inner ? keys(inner, `${group}${name}.`) : [`${group}${name}`])
    )
  expect(keys(settingsSchema()).toSorted()).toEqual(["$schema", ...settingTable.map(({ key }) => key)].toSorted())
})
