// Passwords and tokens in text that people and logs see.
import { assert, describe, test } from "vitest"
import { maskSecrets } from "../../../src/text/secrets.ts"

const masked = (text: string) => maskSecrets(text, {})

describe("what holds no secret stays as it is", () => {
  test.each([
    "postgres://user@host:5432/database",
    "http://127.0.0.1:7070/v1/events",
    "pulsar://broker-1:6650,broker-2:6650",
    "persistent://public/alerts/topic-partition-0",
    "connect ECONNREFUSED 127.0.0.1:5432",
    "2026-11-29T16:42:09.123Z tenant a@b.example wrote to me: hello",
    "error at file:///app/node_modules/effect@4.1.0/dist/index.js:12:34",
    "npm:effect@4.1.0 and jsr:@std/assert@1",
    'role "postgres" does not exist',
    "check the user and the password in the database's URL",
    "keys are tokens of the topic",
    "a record of 7 bytes at 3:42"
  ])("%s", (text) => assert.strictEqual(masked(text), text))
})

describe("a secret is masked", () => {
  test.each([
    ["postgres://user:hunter2@host/db", "postgres://user:***@host/db"],
    ["postgresql://u:p%40ss%2F%3A@host/db?sslmode=require", "postgresql://u:***@host/db?sslmode=require"],
    ["postgres://u:p@ss:w/o?r#d@host/db", "postgres://u:***@host/db"],
    ["postgres://u:12/34@host/db", "postgres://u:***@host/db"],
    ["postgres:/u:hunter2@host", "postgres:/u:***@host"],
    ["postgres:u:hunter2@host", "postgres:u:***@host"],
    ["postgres://:hunter2@host", "postgres://:***@host"],
    ["user:hunter2@host:5432/db", "user:***@host:5432/db"],
    ["'//user:hunter2@host/db' is no URL", "'//user:***@host/db' is no URL"],
    ["postgres://host/db?user=u&password=hunter2&ssl=1", "postgres://host/db?user=u&password=***&ssl=1"],
    ["postgres://host/db?sslpassword=hunter2", "postgres://host/db?sslpassword=***"],
    ["host=db user=u password=hunter2 dbname=x", "host=db user=u password=*** dbname=x"],
    ["password='hun ter\\'2' host=x", "password=*** host=x"],
    ["http://proxy:hunter2@proxy.example:3128", "http://proxy:***@proxy.example:3128"],
    ["https://ghp_token123@git.example/x", "https://***@git.example/x"],
    ["wss://u:p@broker:8443/ws", "wss://u:***@broker:8443/ws"],
    ["ws://broker/ws/v2?token=abc.def", "ws://broker/ws/v2?token=***"],
    ["pulsar+ssl://u:p@broker:6651", "pulsar+ssl://u:***@broker:6651"],
    ["kafka: u:hunter2@broker:9092", "kafka: u:***@broker:9092"],
    [
      'PlainLoginModule required username="u" password="hunter2";',
      'PlainLoginModule required username="u" password=***;'
    ],
    ['{"sasl":{"username":"u","password":"hu\\"nter2"}}', '{"sasl":{"username":"u","password":"***"}}'],
    ['{"url":"postgres://u:hunter2@host/db"}', '{"url":"postgres://u:***@host/db"}'],
    ["Authorization: Bearer abcdefgh12345", "Authorization: Bearer ***"],
    ["Authorization: Basic dTpodW50ZXIy", "Authorization: Basic ***"],
    ["token:eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhIn0.abc-_1", "token:***"],
    ["MILLRACE_KAFKA_PASSWORD=hunter2 npx millrace", "MILLRACE_KAFKA_PASSWORD=*** npx millrace"],
    ["-----BEGIN RSA PRIVATE KEY-----\nabc\n-----END RSA PRIVATE KEY----- x", "*** x"],
    ["two: postgres://a:b@c and redis://d:e@f", "two: postgres://a:***@c and redis://d:***@f"]
  ])("%s", (text, expected) => {
    assert.strictEqual(masked(text), expected)
    assert.strictEqual(masked(expected), expected)
  })
})

test("secrets of the environment are masked wherever they appear, plain, encoded or in JSON, unless they are plain words", () => {
  const environment = {
    MILLRACE_DATABASE_URL: 'postgres://u:my pa%24s"w0rd@host/db',
    MILLRACE_PULSAR_TOKEN: "s3cr3t-token",
    MILLRACE_KAFKA_PASSWORD: "kaf/ka&1",
    MILLRACE_READER_URL: "postgres://postgres:postgres@host/postgres",
    HTTPS_PROXY: "http://u:pr0xy-pass@host"
  }
  const of = (text: string) => maskSecrets(text, environment)
  assert.strictEqual(of('cannot parse "my pa%24s"w0rd"'), 'cannot parse "***"')
  assert.strictEqual(of('authentication with my pa$s"w0rd failed'), "authentication with *** failed")
  assert.strictEqual(of(JSON.stringify({ text: 'my pa%24s"w0rd' })), '{"text":"***"}')
  assert.strictEqual(of("s3cr3t-token; kaf/ka&1; kaf%2Fka%261; pr0xy-pass"), "***; ***; ***; ***")
  assert.strictEqual(of('database "postgres" does not exist'), 'database "postgres" does not exist')
  assert.strictEqual(of("postgres://postgres:postgres@host"), "postgres://postgres:***@host")
})

test("a long text is masked in time that grows with its length", () => {
  for (const part of ["a:", "password=", "postgres://u:p", "@", "eyJ", '"', "a:b@"]) {
    const started = performance.now()
    masked(part.repeat(20_000))
    assert.isBelow(performance.now() - started, 2_000, part)
  }
})
