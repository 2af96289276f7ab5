// Which requests a server on a loopback address accepts, by Host, Origin and the Sec-Fetch headers.
import { describe, expect, test } from "vitest"
import { isLoopbackName, siteCheck } from "../../../src/server/http/site-check.ts"

const check = siteCheck({ hosts: ["millrace.example"], origins: ["https://console.example"] })
const statusOf = (headers: Readonly<Record<string, string>>, method = "GET"): number =>
  check(method, headers)?.status ?? 200

describe("the Host header", () => {
  test.each([
    ["localhost:7070", 200],
    ["LOCALHOST", 200],
    ["app.localhost:80", 200],
    ["127.0.0.1:7070", 200],
    ["127.9.9.9", 200],
    ["[::1]:7070", 200],
    ["millrace.example:443", 200],
    ["attacker.example:7070", 421],
    ["localhost.attacker.example", 421],
    ["127.0.0.1.attacker.example", 421],
    ["127.attacker.example", 421],
    ["notlocalhost", 421],
    ["192.168.0.7:7070", 421],
    ["0.0.0.0:7070", 421],
    ["[::ffff:10.0.0.1]", 421],
    ["localhost:7070@attacker.example", 421],
    ["localhost:port", 421],
    ["", 421]
  ])("%j: %i", (host, status) => {
    expect(statusOf({ host })).toBe(status)
  })
  test("may be missing, as in HTTP/1.0", () => {
    expect(statusOf({})).toBe(200)
  })
})

describe("the origin of a page", () => {
  const host = "127.0.0.1:7070"
  test.each([
    [{}, 200],
    [{ origin: "http://127.0.0.1:7070" }, 200],
    [{ origin: "https://console.example" }, 200],
    [{ origin: "http://127.0.0.1:3000" }, 403],
    // a page of another program, which speaks TLS at a port that this server does not have
    [{ origin: "https://127.0.0.1:7070" }, 403],
    [{ origin: "http://localhost:7070" }, 403],
    [{ origin: "https://attacker.example" }, 403],
    [{ origin: "https://console.example.attacker.example" }, 403],
    [{ origin: "null" }, 403],
    [{ origin: "" }, 403],
    [{ "sec-fetch-site": "same-origin" }, 200],
    [{ "sec-fetch-site": "none" }, 200],
    [{ "sec-fetch-site": "cross-site" }, 403],
    [{ "sec-fetch-site": "same-site" }, 403],
    [{ "sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image" }, 403],
    [{ "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "iframe" }, 403],
    [{ "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" }, 200],
    [{ origin: "https://console.example", "sec-fetch-site": "cross-site" }, 200]
  ])("%j: %i", (headers, status) => {
    expect(statusOf({ host, ...headers })).toBe(status)
  })
  test("a form of another site that navigates with POST is refused", () => {
    const navigation = { "sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document" }
    expect(statusOf({ host, ...navigation }, "POST")).toBe(403)
  })
  test("the default port may be left out on either side", () => {
    expect(statusOf({ host: "localhost", origin: "http://localhost:80" })).toBe(200)
    expect(statusOf({ host: "localhost:80", origin: "http://localhost" })).toBe(200)
  })
})

test.each([
  ["127.0.0.1", true],
  ["::1", true],
  ["localhost", true],
  ["0.0.0.0", false],
  ["::", false],
  ["10.1.2.3", false]
])("a server that listens on %s is on a loopback address: %s", (host, expected) => {
  expect(isLoopbackName(host)).toBe(expected)
})
