// The parts that this machine is expected to have, and what becomes of a list with a name that no part has.
import { assert, describe, it } from "vitest"
import { expected, partsOf } from "../../support/parts.ts"
import { problemOf } from "../../support/stack.ts"

describe("MILLRACE_EXPECT", () => {
  it("lists parts by their names, and is refused with a name that no part has", () => {
    assert.deepStrictEqual(partsOf(""), [])
    assert.deepStrictEqual(partsOf("kafka, native,java"), ["kafka", "native", "java"])
    assert.throws(
      () => partsOf("kafka,rabbit"),
      'MILLRACE_EXPECT lists "rabbit"; the parts are kafka, postgres, pulsar, native, java, maven, docker, chromium, axe, registry, openssl, psql, tmpfs'
    )
  })
  for (const part of expected)
    it(`lists ${part}, which this machine has`, async () => {
      const missing = await problemOf([part], false)
      assert.isUndefined(missing, missing?.reason)
    }, 600_000)
})
