// What a start and the status say of a new build beside the live one: who runs the live one, and what to do next.
import { describe, expect, test } from "vitest"
import type { StoredBuild } from "../../../src/postgres/store/builds.ts"
import { withBuilds, type BuildFacts } from "../../../src/system/build-findings.ts"
import { deploymentOf } from "../../../src/system/deployments.ts"
import type { Finding } from "../../../src/system/findings.ts"

const build = (number: number, more: Partial<StoredBuild> = {}): StoredBuild => ({
  name: "p",
  number,
  declared: number,
  definition: "",
  live: number === 1,
  inline: false,
  retired: false,
  lookups: "asSeen",
  dropped: false,
  untilMs: null,
  fromMs: null,
  copyOf: null,
  repair: null,
  ended: false,
  ...more
})
const both = [build(1), build(2)]
const processOf = (projections: ReadonlyArray<string>, seenMs = 1_000) => ({
  id: "x",
  host: "h",
  pid: 7,
  roles: [],
  projections,
  targets: [],
  failing: [],
  startedMs: 5_000,
  seenMs
})
const of = (more: object) => deploymentOf({ builds: both, processes: [], here: [2], embeddedDir: undefined, ...more })

describe("a deployment", () => {
  test("with both versions in one configuration: compare, promote, remove the old one", () => {
    expect(of({ here: [1, 2] })).toEqual({
      projection: "p",
      message: "version 2 follows version 1, which readers see and this process runs, too",
      try: "when it has caught up, millrace diff p, then millrace promote p, then remove version 1 from the configuration"
    })
  })
  test("with the old version in another process: compare, promote, stop that one", () => {
    expect(of({ processes: [processOf(["p_v1"])], embeddedDir: "d" })).toEqual({
      projection: "p",
      message: "version 2 follows version 1, which readers see and process 7 on h runs",
      try: "when it has caught up, millrace diff --data d p, then millrace promote --data d p, then stop the processes that run only version 1, once you need no rollback"
    })
  })
  test("in place, where no living process runs the old version: promote at once, because nothing is published meanwhile", () => {
    const inPlace = {
      projection: "p",
      message:
        "no process runs version 1, which readers see, so nothing of p is published until the switch. Version 2 catches up to where it stopped",
      try: "when it has caught up, millrace promote p"
    }
    expect(of({})).toEqual(inPlace)
    expect(of({ processes: [processOf(["p_v1"], 60_000), processOf(["other_v1", "p_v10", "p_v2"])] })).toEqual(inPlace)
    expect(of({ toGo: 0 })).toMatchObject({
      message: `${inPlace.message}; it has caught up`,
      try: "millrace promote p"
    })
    expect(of({ toGo: 7 })!.message).toBe(`${inPlace.message}; it has 7 records to go`)
  })
  test("of a rebuild of the same version says the number of the build", () => {
    expect(of({ builds: [build(1), build(2, { declared: 1 })], here: [1, 2] })).toMatchObject({
      message: "build 2 of version 1 follows version 1, which readers see and this process runs, too",
      try: "when it has caught up, millrace diff p, then millrace promote p"
    })
  })
  test("of code that is older than what is live says so", () => {
    const promoted = [build(1, { live: false }), build(2, { live: true })]
    expect(of({ builds: promoted, here: [1] })).toMatchObject({
      message:
        "readers see version 2, which this configuration does not have; version 1 follows it and publishes nothing",
      try: "deploy the code of version 2 here, or take its place back: millrace promote p --rollback"
    })
    expect(of({ builds: promoted, here: [2] })).toBeUndefined()
    expect(of({ builds: promoted, here: undefined })).toBeUndefined()
  })
  test("is none where there is one build, or none that is not retired", () => {
    expect(of({ builds: [build(1)], here: [1] })).toBeUndefined()
    expect(of({ builds: [build(1), build(2, { retired: true })], here: [1] })).toBeUndefined()
    expect(of({ builds: [] })).toBeUndefined()
  })
})

describe("the status", () => {
  const finding = (kind: Finding["kind"], what: string): Finding => ({ kind, what, message: "m", try: "t" })
  const at = (version: number, position: number) => ({ name: "p", version, topic: "s", partition: 0, position })
  const facts: BuildFacts = {
    builds: both,
    partitions: [at(1, 9), at(2, 4)],
    processes: [],
    warnings: [],
    embeddedDir: undefined
  }
  const removed = {
    notices: [finding("removed", "projection p v1"), finding("removed", "projection q v1")],
    problems: [finding("not_running", "projection p v1"), finding("not_running", "projection q v1")]
  }
  test("names what follows and how far it is, in place of advice to put the old version back or to start it", () => {
    const { notices, problems } = withBuilds(removed, facts)
    expect(notices.map(({ kind, what }) => [kind, what])).toEqual([
      ["removed", "projection q v1"],
      ["building", "projection p"]
    ])
    expect(notices[1]!.message).toMatch(/; it has 5 records to go$/)
    expect(problems.map((one) => one.try)).toEqual(["when it has caught up, millrace promote p", "t"])
  })
  test("keeps what it said where there is no newer build", () => {
    expect(withBuilds(removed, { ...facts, builds: [build(1)] })).toEqual(removed)
  })
  test("names functions that changed, of live builds only", () => {
    const warnings = [1, 2].map((version) => ({ name: "p", version, warnings: ["the handler changed"] }))
    const { notices } = withBuilds({ notices: [], problems: [] }, { ...facts, warnings })
    expect(notices.filter(({ kind }) => kind === "changed")).toEqual([
      {
        kind: "changed",
        what: "projection p v1",
        message:
          "the handler changed since the version first ran, or since it was accepted; rows keep what the old code made of them",
        try: "if the results stay the same: millrace migrate --accept p; if not: millrace rebuild p, then diff and promote"
      }
    ])
  })
})
