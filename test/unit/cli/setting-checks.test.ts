// What `config` and `doctor` say of values that no process would start with.
import * as Effect from "effect/Effect"
import { afterEach, expect, test, vi } from "vitest"
import { portOf } from "../../../src/cli/http-port.ts"
import { settingProblems } from "../../../src/cli/setting-checks.ts"

afterEach(() => vi.unstubAllEnvs())

test("values that can be meant have no problem", () => {
  vi.stubEnv("MILLRACE_HTTP_CORS", "https://console.example.com")
  vi.stubEnv("MILLRACE_HTTP_RATE_LIMIT_READ", "100/second")
  expect(Effect.runSync(settingProblems)).toEqual([])
})

test.each([
  ["MILLRACE_HTTP_PORT", "abc", /a port, 0 to 65535/],
  ["MILLRACE_HTTP_AUTH", "none", /use required or optional/],
  ["MILLRACE_HTTP_CORS", "*", /not an origin/],
  ["MILLRACE_HTTP_RATE_LIMIT_READ", "5/fortnight", /a number of requests and a time/],
  ["MILLRACE_HTTP_TRUSTED_PROXIES", "10.0.0.0/99", /no address and no network/],
  ["MILLRACE_HTTP_TLS_CERT", "/nope.pem", /belong together/],
  ["MILLRACE_HEALTH_MAX_AGE", "x", /a duration above 0/],
  ["MILLRACE_KEY_ENCRYPTION_KEY", "short", /MILLRACE_KEY_ENCRYPTION_KEY/]
])("%s=%s is named with what to do, beside others that are wrong", (name, value, message) => {
  vi.stubEnv("MILLRACE_JWT_KEYS", "ftp://nowhere")
  vi.stubEnv(name, value)
  const problems = Effect.runSync(settingProblems)
  const found = problems.find((problem) => message.test(problem.message))
  expect(found, JSON.stringify(problems)).toBeDefined()
  expect(found!.try.length).toBeGreaterThan(5)
  expect(problems.length).toBeGreaterThan(1)
})

test.each([
  ["/nope/keys.json", /MILLRACE_JWT_KEYS names the file \/nope\/keys\.json, which cannot be read/, /exists/],
  [import.meta.filename, /MILLRACE_JWT_KEYS names .*, which is not a JWK set/, /"keys"/]
])("the file of keys %s is named with its setting and what to do", (path, message, advice) => {
  vi.stubEnv("MILLRACE_JWT_KEYS", path)
  vi.stubEnv("MILLRACE_JWT_ISSUER", "x")
  vi.stubEnv("MILLRACE_JWT_AUDIENCE", "y")
  expect(Effect.runSync(settingProblems)).toEqual([
    { message: expect.stringMatching(message), try: expect.stringMatching(advice) }
  ])
})

test.each([-1, 65_536, 99_999])("--port %s is refused as it was written", (port) => {
  expect(Effect.runSync(Effect.flip(portOf(port)))).toMatchObject({
    message: `--port is ${port}; it must be a port, 0 to 65535`,
    try: expect.stringContaining("0 picks a free port"),
    exitCode: 2
  })
})

test("--port wins over MILLRACE_HTTP_PORT, also port 0", () => {
  vi.stubEnv("MILLRACE_HTTP_PORT", "7171")
  expect([0, 65_535, undefined].map((port) => Effect.runSync(portOf(port)))).toEqual([0, 65_535, 7_171])
})
