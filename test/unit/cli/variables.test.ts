// Variables of the environment: those that are documented, those that are misspelled, and values that would go on without what was asked for.
import { readFileSync } from "node:fs"
import { describe, expect, test } from "vitest"
import { misspelledVariable, variables } from "../../../src/cli/variables.ts"
import { optionsFrom } from "../../../src/kafka/protocol/options.ts"

test("the page of the configuration has every variable, and no other", () => {
  const page = readFileSync(new URL("../../../docs/reference/configuration.md", import.meta.url), "utf8")
  const named = [...page.matchAll(/^\| *(`[^|]*`)/gm)].flatMap(([, cell]) => {
    // a name that begins with _ has the prefix of the first one
    const prefix = /MILLRACE_(KAFKA|PULSAR)/.exec(cell!)?.[0] ?? "MILLRACE"
    return [...cell!.matchAll(/`(\w+)`/g)].map(([, name]) => (name!.startsWith("_") ? prefix + name! : name!))
  })
  expect(named.filter((name) => name.startsWith("MILLRACE_")).toSorted()).toEqual(variables.toSorted())
})

describe("a misspelled variable", () => {
  test.each([
    ["MILLRACE_KAFKA_BROKER", "MILLRACE_KAFKA_BROKERS"],
    ["MILLRACE_KAKFA_BROKERS", "MILLRACE_KAFKA_BROKERS"],
    ["MILRACE_DATABASE_URL", "MILLRACE_DATABASE_URL"],
    ["millrace_database_url", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_DATABASE_URI", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_PULSAR_TOKENS", "MILLRACE_PULSAR_TOKEN"],
    ["MILLRACE_DATABASE", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_DB_URL", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_DB", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_POSTGRES_URL", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_PG_URI", "MILLRACE_DATABASE_URL"],
    ["MILLRACE_KAFKA", "MILLRACE_KAFKA_BROKERS"],
    ["MILLRACE_PULSAR", "MILLRACE_PULSAR_URL"],
    ["MILLRACE_PORT", "MILLRACE_HTTP_PORT"]
  ])("%s is refused with %s", (name, meant) => {
    const refused = misspelledVariable({ [name]: "x" })
    expect(refused?.message).toBe(`the environment variable ${name} is not one of Millrace's`)
    expect(refused?.try).toContain(`did you mean ${meant}?`)
  })
  test.each([
    "MILLRACE_SERVICE_HOST",
    "MILLRACE_SERVICE_PORT_HTTP",
    "MILLRACE_PORT_7070_TCP",
    "MILLRACE_PORT_7070_TCP_ADDR",
    "MILLRACE_DB_SERVICE_HOST",
    "MILLRACE_IMAGE",
    "MILLRACE_EXPECT",
    "DATABASE_URL",
    "MILLRACE_URL"
  ])("%s is left alone", (name) => {
    expect(misspelledVariable({ [name]: "x" })).toBeUndefined()
  })
  test("a port that Kubernetes sets for a service called millrace is left alone", () => {
    expect(misspelledVariable({ MILLRACE_PORT: "tcp://10.0.0.1:7070" })).toBeUndefined()
  })
})

describe("values for Kafka that would go on without TLS, or without the password", () => {
  const brokers = { MILLRACE_KAFKA_BROKERS: "a:1" }
  const refusals: ReadonlyArray<readonly [Readonly<Record<string, string>>, string]> = [
    [{ MILLRACE_KAFKA_TLS: "yes" }, "MILLRACE_KAFKA_TLS is 'yes'; it must be true or false"],
    [{ MILLRACE_KAFKA_TLS: "1" }, "MILLRACE_KAFKA_TLS is '1'; it must be true or false"],
    [{ MILLRACE_KAFKA_TLS_CA: "no/such/file" }, "MILLRACE_KAFKA_TLS_CA is 'no/such/file', which cannot be read"],
    [{ MILLRACE_KAFKA_TLS_CA: "package.json" }, "MILLRACE_KAFKA_TLS_CA is 'package.json', which is no PEM file"],
    [
      { MILLRACE_KAFKA_USERNAME: "me" },
      "MILLRACE_KAFKA_USERNAME and MILLRACE_KAFKA_PASSWORD belong together: set both, or none"
    ],
    [
      { MILLRACE_KAFKA_PASSWORD: "p" },
      "MILLRACE_KAFKA_USERNAME and MILLRACE_KAFKA_PASSWORD belong together: set both, or none"
    ]
  ]
  test.each(refusals)("%j is refused", (env, message) => {
    expect(() => optionsFrom({ ...brokers, ...env })).toThrow(message)
  })
  test.each([
    ["true", true],
    ["TRUE", true],
    ["false", undefined],
    ["", undefined]
  ])("MILLRACE_KAFKA_TLS=%s is accepted", (value, tls) => {
    expect(optionsFrom({ ...brokers, MILLRACE_KAFKA_TLS: value })?.tls).toBe(tls)
  })
})
