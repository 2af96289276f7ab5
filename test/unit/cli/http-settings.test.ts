// What the settings of the HTTP server mean, and which are refused with what to do.
import { describe, expect, test } from "vitest"
import { httpSettings } from "../../../src/cli/http-settings.ts"
import { certificateRules, principalOfNames, sansOf } from "../../../src/server/access/certificates.ts"
import { addressKey, rateLimitOf } from "../../../src/server/http/rate-limits.ts"

const of = (name: string, value: string) => ({ [`MILLRACE_HTTP_${name}`]: value })

test("origins, proxies and limits are read", () => {
  const { cors, rateLimits, tls, trustedProxies } = httpSettings({
    ...of("CORS", "https://console.example.com, http://localhost:3000"),
    ...of("TRUSTED_PROXIES", "127.0.0.1,10.0.0.0/8,fd00::/8"),
    ...of("RATE_LIMIT_INGEST", "1000/second"),
    ...of("RATE_LIMIT_READ", "60 / minute")
  })
  expect(tls).toBeUndefined()
  expect(cors).toEqual(["https://console.example.com", "http://localhost:3000"])
  expect(trustedProxies).toEqual(["127.0.0.1", "10.0.0.0/8", "fd00::/8"])
  expect(rateLimits).toEqual({ ingest: { max: 1_000, windowMs: 1_000 }, read: { max: 60, windowMs: 60_000 } })
})
test.each([
  [of("CORS", "*"), "'*', which is not an origin: with * every page"],
  [of("CORS", "https://a.example/"), "'https://a.example/', which is not an origin"],
  [of("CORS", "console.example.com"), "which is not an origin"],
  [of("TRUSTED_PROXIES", "proxy.internal"), "'proxy.internal', which is no address and no network"],
  [of("TRUSTED_PROXIES", "10.0.0.0/33"), "'10.0.0.0/33', which is no address"],
  [of("TRUSTED_PROXIES", "10.0.0.0/8/8"), "which is no address"],
  [of("RATE_LIMIT_READ", "100"), "MILLRACE_HTTP_RATE_LIMIT_READ is '100'"],
  [of("RATE_LIMIT_READ", "0/second"), "it must be a number of requests and a time"],
  [of("TLS_CERT", "cert.pem"), "belong together"],
  [of("TLS_CA", "ca.pem"), "MILLRACE_HTTP_TLS_CERT is not"],
  [{ ...of("TLS_CERT", "c"), ...of("TLS_KEY", "k"), ...of("TLS_CLIENTS", "yes") }, "must be required or optional"],
  [{ ...of("TLS_CERT", "/no/c"), ...of("TLS_KEY", "/no/k") }, "the certificate /no/c cannot be read"],
  [of("TLS_PRINCIPALS", "loader"), "MILLRACE_HTTP_TLS_PRINCIPALS: it is not JSON"]
])("%j is refused", (env, message) => {
  expect(() => httpSettings(env)).toThrow(message)
})
test("a limit is a number and a time", () => {
  expect(rateLimitOf("5/hour")).toEqual({ max: 5, windowMs: 3_600_000 })
  expect(["5", "5/day", "-5/second", "1e3/second", "5/second/2"].map(rateLimitOf)).toEqual(Array(5).fill(undefined))
})
test("an IPv6 address counts as its network of 64 bits, and one that stands for IPv4 as that", () => {
  expect(addressKey("2001:db8:1:2:3:4:5:6")).toBe("2001:db8:1:2")
  expect(addressKey("2001:db8::1")).toBe("2001:db8:0:0")
  expect(addressKey("::1")).toBe("0:0:0:0")
  expect(addressKey("fe80::1%eth0")).toBe("fe80:0:0:0")
  expect(addressKey("::ffff:192.0.2.1")).toBe("192.0.2.1")
  expect(addressKey("192.0.2.1")).toBe("192.0.2.1")
})

describe("certificates of clients", () => {
  const rules = certificateRules(
    '[{"cn":"loader","scopes":["ingest"]},{"san":"DNS:app.acme","name":"acme","scopes":["read"],"tenant":"acme"}]'
  )
  test("the first rule with a name of the certificate decides; a name is not a part of one", () => {
    const nameOf = (cn: string | undefined, sans: ReadonlyArray<string> = []) =>
      principalOfNames(rules, { cn, sans })?.name
    expect(nameOf("loader")).toBe("loader")
    expect(nameOf("x", ["DNS:other", "DNS:app.acme"])).toBe("acme")
    expect([nameOf("loader2"), nameOf("DNS:app.acme"), nameOf(undefined, ["DNS:app.acme.evil"])]).toEqual([
      undefined,
      undefined,
      undefined
    ])
  })
  test("a name that hides others in quotes has no meaning", () => {
    expect(sansOf('DNS:"a, DNS:app.acme", DNS:ok')).toEqual(["DNS:ok"])
    expect(sansOf(undefined)).toEqual([])
  })
  test.each([
    ['{"cn":"a"}', "it must be an array"],
    ["[5]", "[0] is 5; it must be an object"],
    ['[{"cn":"a","scope":["read"]}]', "[0] has the member scope; did you mean scopes?"],
    ['[{"scopes":["read"]}]', "[0] must have either cn or san"],
    ['[{"cn":"a","san":"DNS:a","scopes":["read"]}]', "[0] must have either cn or san"],
    ['[{"san":"a","scopes":["read"]}]', "it must begin with DNS:"],
    ['[{"cn":"","scopes":["read"]}]', '[0].cn is ""; it must be a text that is not empty'],
    ['[{"cn":"a","scopes":["write"]}]', "it must be an array of some of ingest, read, operate"],
    ['[{"cn":"a","scopes":[]}]', "it must be an array of some of"],
    ['[{"cn":"a","scopes":["operate"],"tenant":"t"}]', "has a tenant and the scope operate"]
  ])("%s is refused", (text, message) => {
    expect(() => certificateRules(text)).toThrow(message)
  })
})
