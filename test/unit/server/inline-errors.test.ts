// What becomes of a command over HTTP whose events an inline projection cannot take: never a rejection, which would be its answer for good.
import { expect, test } from "vitest"
import { InlineFailed, InlineMissing } from "../../../src/index.ts"
import { problemOf, rejectionOf } from "../../../src/server/aggregates/answers.ts"

const failed = new InlineFailed({ aggregate: "account", stream: "a", projection: "accounts", reason: "unlucky" })
const missing = new InlineMissing({ aggregate: "account", projection: "accounts", version: 2 })

test("errors of inline projections are problems of the server, and no rejections", () => {
  expect(problemOf(failed)).toMatchObject({ status: 500, code: "inline_failed" })
  expect(problemOf(missing)).toMatchObject({ status: 503, code: "inline_missing" })
  expect([failed, missing].map(rejectionOf)).toEqual([undefined, undefined])
})
