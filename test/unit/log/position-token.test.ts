// The position token: its text, and what is refused.
import { expect, test } from "vitest"
import { parseToken, positionToken } from "../../../src/log/position-token.ts"

test("a token has the last position of each partition, and is read back", () => {
  const token = positionToken([
    { topic: "a.v1", partition: 0, position: 7 },
    { topic: "a.v1", partition: 0, position: 9 },
    { topic: "a.v1", partition: 0, position: 8 },
    { topic: "ä", partition: 11, position: 1 }
  ])
  expect(token).toMatch(/^p1\.[\w-]+$/)
  expect(parseToken(token)).toEqual([
    { topic: "a.v1", partition: 0, position: 9 },
    { topic: "ä", partition: 11, position: 1 }
  ])
  expect(parseToken(positionToken([]))).toEqual([])
})

test("what is no token is undefined", () => {
  const forged = (value: unknown) => `p1.${Buffer.from(JSON.stringify(value)).toString("base64url")}`
  for (const text of [
    "",
    "p1.",
    "p2.W10",
    "p1.W1",
    `${positionToken([])}=`,
    forged({}),
    forged([["t", 0]]),
    forged([["t", 0, -1]]),
    forged([["t", 0, 1e300]]),
    forged([["\u0000", 0, 1]]),
    forged([["t", "0", 1]])
  ])
    expect(parseToken(text), text).toBe(undefined)
})
