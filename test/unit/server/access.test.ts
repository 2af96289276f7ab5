// Credentials: the text of API keys, where a request has its credential, and which tokens are accepted, with an issuer whose keys change.
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { exportJWK, generateKeyPair, type JWK, SignJWT } from "jose"
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from "vitest"
import { credentialOf } from "../../../src/server/access/access.ts"
import { newApiKey, partsOfApiKey } from "../../../src/server/access/api-keys.ts"
import { type JwtOptions, KeysUnavailable, makeJwtCheck, RefusedToken } from "../../../src/server/access/jwt.ts"
import { jwtOptions } from "../../../src/server/access/options.ts"
import { scopeProblem } from "../../../src/server/access/principal.ts"

test("the text of an API key has its id and 256 random bits, and nothing else is a key", () => {
  const { digest, id, text } = newApiKey()
  expect(partsOfApiKey(text)).toEqual({ id, secret: expect.stringMatching(/^[\w-]{43}$/) })
  expect(digest).toHaveLength(32)
  expect(newApiKey().text).not.toBe(text)
  for (const other of ["", "mr_", text.slice(0, -1), `${text}a`, text.replace("mr_", "mx_"), ` ${text}`])
    expect(partsOfApiKey(other)).toBeUndefined()
})

test("a credential is in the header Authorization, in a WebSocket's protocol, or in the parameter access_token", () => {
  expect(credentialOf({ authorization: "Bearer a.b-c_d~e+f/g==" }, {})).toBe("a.b-c_d~e+f/g==")
  expect(credentialOf({ authorization: "bearer  x" }, { access_token: "y" })).toBe("x")
  expect(credentialOf({ "sec-websocket-protocol": "millrace, millrace.bearer.x" }, {})).toBe("x")
  expect(credentialOf({}, { access_token: "y" })).toBe("y")
  expect(credentialOf({}, { access_token: ["y", "z"] })).toBeUndefined()
  for (const authorization of ["", "Bearer", "Basic eA==", "Bearer a b", "Bearer \u00e9"])
    expect(() => credentialOf({ authorization }, {})).toThrow(/not of the form Bearer KEY/)
})

test("a principal of a tenant never operates the system, whatever its scopes are", () => {
  const all = new Set(["ingest", "read", "operate"] as const)
  expect(scopeProblem({ name: "a", tenant: undefined, scopes: all }, "operate")).toBeUndefined()
  expect(scopeProblem({ name: "a", tenant: "acme", scopes: all }, "operate")).toMatchObject({ status: 403 })
  expect(scopeProblem({ name: "a", tenant: "acme", scopes: new Set() }, "read")).toMatchObject({
    status: 403,
    message: "a has no scope, and this route needs the scope read"
  })
})

describe("JSON Web Tokens", () => {
  let issuer: Server
  let url = ""
  let isAway = false
  const published: Array<JWK> = []
  const keyOf = async (kid: string) => {
    const { privateKey, publicKey } = await generateKeyPair("ES256")
    published.push({ ...(await exportJWK(publicKey)), kid, alg: "ES256" })
    return privateKey
  }
  const options = (): JwtOptions => ({
    keys: { url },
    algorithms: ["ES256"],
    issuer: "https://issuer.example",
    audience: "millrace",
    tenantClaim: "tenant",
    scopeClaim: "scope",
    scopePrefix: "millrace:"
  })
  interface Claims {
    readonly iss?: string
    readonly aud?: string
    readonly exp?: number | string | undefined
    readonly nbf?: number
    readonly tenant?: unknown
    readonly scope?: unknown
  }
  const tokenOf = (key: Awaited<ReturnType<typeof keyOf>>, kid: string, claims: Claims = {}) => {
    const all = {
      exp: "5m",
      iss: "https://issuer.example",
      aud: "millrace",
      tenant: "acme",
      scope: "millrace:read",
      ...claims
    }
    const { aud, exp, iss, nbf, ...rest } = all
    const jwt = new SignJWT(rest)
      .setProtectedHeader({ alg: "ES256", kid })
      .setSubject("app")
      .setIssuer(iss)
      .setAudience(aud)
    if (exp !== undefined) jwt.setExpirationTime(exp)
    if (nbf !== undefined) jwt.setNotBefore(nbf)
    return jwt.sign(key)
  }
  beforeAll(async () => {
    issuer = createServer((_, response) => {
      response.statusCode = isAway ? 500 : 200
      response.setHeader("content-type", "application/json").end(JSON.stringify({ keys: published }))
    })
    await new Promise<void>((done) => issuer.listen(0, "127.0.0.1", done))
    url = `http://127.0.0.1:${(issuer.address() as AddressInfo).port}/keys`
  })
  afterAll(() => issuer.close())

  test("a token of the issuer is a principal, with its tenant and those of its scopes that are known", async () => {
    const key = await keyOf("k1")
    const check = await makeJwtCheck(options())
    const scope = "millrace:read openid read millrace:ingest millrace:all"
    expect(await check(await tokenOf(key, "k1", { scope }))).toEqual({
      name: "app",
      expiresMs: expect.any(Number),
      tenant: "acme",
      scopes: new Set(["read", "ingest"])
    })
    const asArray = await check(await tokenOf(key, "k1", { scope: ["millrace:operate", 1, null] }))
    expect(asArray.scopes).toEqual(new Set(["operate"]))
    expect((await check(await tokenOf(key, "k1", { scope: { a: 1 } }))).scopes).toEqual(new Set())
  })

  test("a key that the issuer adds later is read from it when a token names it", async () => {
    const first = await keyOf("k2")
    const check = await makeJwtCheck(options())
    await check(await tokenOf(first, "k2"))
    const later = await keyOf("k3")
    // the set was read a moment ago: an unknown key is not looked for more often than that
    await expect(check(await tokenOf(later, "k3"))).rejects.toThrow(RefusedToken)
    const afresh = await makeJwtCheck(options())
    expect(await afresh(await tokenOf(later, "k3"))).toMatchObject({ tenant: "acme" })
  })

  test.each<readonly [string, Claims]>([
    ["of another issuer", { iss: "https://evil.example" }],
    ["for another audience", { aud: "billing" }],
    ["that has expired", { exp: 1_000 }],
    ["that never expires", { exp: undefined }],
    ["that is not valid yet", { nbf: 32_503_680_000 }],
    ["without a tenant", { tenant: undefined }],
    ["with a tenant that is no text", { tenant: ["acme"] }],
    ["with an empty tenant", { tenant: "" }]
  ])("a token %s is refused", async (_, claims) => {
    const kid = `k${published.length + 1}`
    const key = await keyOf(kid)
    const check = await makeJwtCheck(options())
    await expect(check(await tokenOf(key, kid, claims))).rejects.toThrow(RefusedToken)
  })

  test("tokens without a signature, with a shared secret, of an algorithm that is not allowed, or signed by another key are refused", async () => {
    const check = await makeJwtCheck(options())
    const part = (value: object) => Buffer.from(JSON.stringify(value)).toString("base64url")
    const claims = { iss: "https://issuer.example", aud: "millrace", exp: 32_503_680_000, tenant: "acme" }
    await expect(check(`${part({ alg: "none" })}.${part(claims)}.`)).rejects.toThrow(RefusedToken)
    const secret = await new SignJWT(claims).setProtectedHeader({ alg: "HS256", kid: "k1" }).sign(new Uint8Array(32))
    await expect(check(secret)).rejects.toThrow(RefusedToken)
    const { privateKey } = await generateKeyPair("ES256")
    await expect(check(await tokenOf(privateKey, "k1"))).rejects.toThrow(RefusedToken)
    const { privateKey: rsa } = await generateKeyPair("RS256")
    const other = await new SignJWT(claims).setProtectedHeader({ alg: "RS256", kid: "k1" }).sign(rsa)
    await expect(check(other)).rejects.toThrow(RefusedToken)
    await expect(check("x".repeat(10_000))).rejects.toThrow(RefusedToken)
    await expect(check("a.b.c")).rejects.toThrow(RefusedToken)
  })

  test("an issuer that is away is no refusal", async () => {
    const key = await keyOf("away")
    isAway = true
    const check = await makeJwtCheck(options())
    await expect(check(await tokenOf(key, "away"))).rejects.toThrow(KeysUnavailable)
    isAway = false
    expect(await check(await tokenOf(key, "away"))).toMatchObject({ tenant: "acme" })
  })

  test("while an issuer is away its newest keys are used, also if another token was checked while they were read", async () => {
    vi.useFakeTimers({ toFake: ["Date"], now: Date.now() })
    onTestFinished(() => void vi.useRealTimers())
    const [old, next] = [await keyOf("old"), await keyOf("next")]
    const [nextKey, oldKey] = [published.pop()!, published.pop()!]
    const [oldToken, nextToken] = [await tokenOf(old, "old"), await tokenOf(next, "next")]
    let answer = async () => ({ status: 200, keys: [oldKey] })
    const own = createServer(async (_, response) => {
      const { keys, status } = await answer()
      response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify({ keys }))
    })
    onTestFinished(() => void own.close())
    await new Promise<void>((done) => own.listen(0, "127.0.0.1", done))
    const ownUrl = `http://127.0.0.1:${(own.address() as AddressInfo).port}/keys`
    const times = { cooldownMs: 0, keptMs: 60_000 }
    const check = await makeJwtCheck({ ...options(), keys: { url: ownUrl } }, times)
    await check(oldToken)
    const [asked, released] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()]
    answer = async () => {
      asked.resolve()
      await released.promise
      return { status: 200, keys: [nextKey] }
    }
    const reading = check(nextToken)
    await asked.promise
    await check(oldToken)
    released.resolve()
    await reading
    answer = async () => ({ status: 500, keys: [] })
    vi.setSystemTime(Date.now() + times.keptMs + 1)
    expect(await check(nextToken)).toMatchObject({ tenant: "acme" })
    await expect(check(oldToken)).rejects.toThrow(KeysUnavailable)
  })

  test("options come from the environment, and what is missing or misspelled is named", () => {
    const MILLRACE_JWT_KEYS = "https://issuer.example/keys"
    const [MILLRACE_JWT_ISSUER, MILLRACE_JWT_AUDIENCE] = ["https://issuer.example", "millrace"]
    expect(jwtOptions({})).toBeUndefined()
    const all = { MILLRACE_JWT_KEYS, MILLRACE_JWT_ISSUER, MILLRACE_JWT_AUDIENCE }
    expect(jwtOptions(all)).toMatchObject({ tenantClaim: "tenant", algorithms: ["RS256", "PS256", "ES256", "EdDSA"] })
    expect(jwtOptions({ ...all, MILLRACE_JWT_TENANT_CLAIM: "" })).toMatchObject({ tenantClaim: undefined })
    expect(() => jwtOptions({ MILLRACE_JWT_KEYS })).toThrow("MILLRACE_JWT_ISSUER is not")
    expect(() => jwtOptions({ ...all, MILLRACE_JWT_ALGORITHMS: "RS265" })).toThrow("did you mean RS256?")
    expect(() => jwtOptions({ ...all, MILLRACE_JWT_ALGORITHMS: "none" })).toThrow("use some of RS256")
  })
})
