// Carries out the steps of a plan: each causes its fault, waits until it has happened, and leaves the regular processes running.
import { setTimeout as sleep } from "node:timers/promises"
import type { Role, Worker } from "../harness/fleet.ts"
import { partitions } from "./fold.ts"
import { claims, endCommits, endLanes, holdCommits, isHandled } from "./observe.ts"
import { Hands } from "../harness/hands.ts"
import type { Plan, Step } from "./plan.ts"
import { CommitProxy, type Loss } from "./commit-proxy.ts"
import type { Run } from "./run.ts"
import { crashPostgres } from "../harness/postgres.ts"
import { crashKafka } from "./services.ts"

type Of<K extends Step["kind"]> = Extract<Step, { readonly kind: K }>

/** Carries out a plan: the left hand works on projections and the database, the right one on relays and the broker. */
export class Steps extends Hands<Step, Role> {
  protected readonly run: Run
  protected readonly regular: Readonly<Record<Role, number>>
  private readonly plan: Plan

  constructor(run: Run, plan: Plan, regular: Readonly<Record<Role, number>>) {
    super()
    this.run = run
    this.plan = plan
    this.regular = regular
  }

  /** Carries out the whole plan. */
  async carryOut(): Promise<void> {
    await this.restock("projections")
    await this.restock("relay")
    const { sql } = this.run.services
    await this.run.until("claims of all partitions", async () => (await claims(sql)) >= partitions)
    await this.runHands([
      [this.plan.left, "projections"],
      [this.plan.right, "relay"]
    ])
  }
  protected override launch(role: Role): void {
    this.run.fleet.start(role)
  }
  protected override async feed(share: number): Promise<void> {
    const { feeder, options } = this.run
    const due = Math.floor(options.events * share) - feeder.fed
    if (due > 0) await feeder.feed(Math.min(due, 20_000))
  }
  protected override async after(): Promise<void> {
    const { differences, services, watch } = this.run
    // the other hand may have stopped the server
    await watch.look(services.sql, differences).catch(() => undefined)
  }
  private async start(role: Role, point?: string, url?: string): Promise<Worker> {
    await this.gate.passage
    return this.run.fleet.start(role, {
      ...(point === undefined ? {} : { point }),
      ...(url === undefined ? {} : { environment: { MILLRACE_DATABASE_URL: url } })
    })
  }

  protected override async perform(step: Step): Promise<void> {
    switch (step.kind) {
      case "killAtPoints":
        return this.killAtPoints(step)
      case "killAtRandom":
        return this.killAtRandom(step)
      case "killRelayAtPoint":
        return this.killRelayAtPoint(step)
      case "joinAndLeave":
        return this.joinAndLeave(step)
      case "zombie":
        return this.zombie(step)
      case "overlap":
        return this.overlap()
      case "relayZombie":
        return this.relayZombie(step)
      case "endBackends":
        return this.endBackends(step)
      case "loseReplies":
        return this.loseReplies(step.losses)
      case "relayFight":
        return this.relayFight(step)
      case "crashPostgres":
        await this.gate.closed(this.run, () => crashPostgres(this.run.services, step.immediate))
        return this.run.note("PostgreSQL crashed")
      case "crashKafka":
        await this.gate.closed(this.run, () => crashKafka(this.run.services))
        return this.run.note("broker killed")
    }
  }

  private async killAtPoints({ points }: Of<"killAtPoints">) {
    let more = 0
    const armed = await Promise.all(points.map(({ name, nth }) => this.start("projections", `kill:${name}:${nth}`)))
    for (const [i, worker] of armed.entries()) {
      const { name } = points[i]!
      let newest = worker
      await this.run.until(`a process reaches the point '${name}'`, async () => {
        // partitions are only revoked from a process when others join
        if (name === "at revocation" && more < 4 && newest.claims > 0) {
          newest = await this.start("projections")
          more++
        }
        return worker.exit !== undefined
      })
      this.noteKilled(worker, `projector killed ${name}`)
    }
    await this.reduce()
  }
  private async killRelayAtPoint({ name, nth }: Of<"killRelayAtPoint">) {
    const armed = await this.start("relay", `kill:${name}:${nth}`)
    await this.leaveTo("relay", armed)
    await this.run.until(`a process reaches the point '${name}'`, () => armed.exit !== undefined)
    this.noteKilled(armed, `relay killed ${name}`)
  }
  private async killAtRandom({ afterMs, role }: Of<"killAtRandom">) {
    const [worker] = this.run.fleet.of(role)
    await sleep(afterMs)
    await worker?.end("SIGKILL")
    this.run.note(`${role === "relay" ? "relay" : "projector"} killed at random`)
  }
  /** Ends the oldest processes by SIGTERM until only the regular number is left. */
  private async reduce() {
    const running = this.run.fleet.of("projections").filter(({ stopped }) => !stopped)
    const surplus = running.slice(0, Math.max(0, running.length - this.regular.projections))
    await Promise.all(surplus.map((worker) => worker.end("SIGTERM")))
    if (surplus.length > 0) this.run.note("member left by SIGTERM", surplus.length)
  }

  private async joinAndLeave({ signal }: Of<"joinAndLeave">) {
    const { services } = this.run
    const worker = await this.start("projections")
    await this.run.until("claim by a process that joined", () => worker.claims > 0)
    this.run.note("rebalance: joined")
    const before = await claims(services.sql)
    await worker.end(signal)
    await this.run.until("claim after a process left", async () => (await claims(services.sql)) > before)
    this.run.note(signal === "SIGTERM" ? "rebalance: left" : "rebalance: lost")
  }

  private async zombie({ nth }: Of<"zombie">) {
    const { feeder, services } = this.run
    const worker = await this.start("projections", `stop:before commit:${nth}`)
    await this.run.until("a process to be stopped before a commit", () => worker.stopped)
    // other processes take over everything that is sent by now, and so the events of the stopped process
    const ends = await feeder.ends()
    await this.run.until("takeover from a stopped process", () => isHandled(services.sql, ends))
    const before = worker.fenced
    worker.signal("SIGCONT")
    // without fencing its commits are answered, too; the process has other projections, whose commits are answered meanwhile
    const answered = () => worker.fenced > before || worker.answered > 10 * partitions || worker.exit !== undefined
    await this.run.until("answer to the commit of a continued process", answered)
    this.run.note(worker.fenced > before ? "zombie fenced" : "zombie not fenced")
    await this.reduce()
  }
  /** Tries up to three times to overlap two claims, because the first process may have read events that the other hand sent instead. */
  private async overlap() {
    for (let tries = 3; tries > 0; tries--) {
      const fenced = await this.run.quietly(() => this.overlapOnce())
      if (fenced) return this.run.note("overlapping claim fenced")
    }
    this.run.note("overlapping claim not fenced")
  }
  /**
   * Stops two processes before a commit of the same partition. The later claimant has more events than the first one, which continues before
   * the other has committed anything, so that only the claim distinguishes their commits. Returns whether the first one was fenced.
   */
  private async overlapOnce(): Promise<boolean> {
    const { feeder, fleet, services } = this.run
    const isAllHandled = async () => isHandled(services.sql, await feeder.ends())
    const startAlone = async (deed: "stop" | "step") => {
      const worker = await this.start("projections", `${deed}:before commit:1`)
      await Promise.all(fleet.of("projections").map((one) => one !== worker && !one.stopped && one.end("SIGTERM")))
      return worker
    }
    const untilStopped = (worker: Worker) =>
      this.run.until("a process to be stopped before a commit", () => worker.stopped)
    await this.run.until("processing before an overlap", isAllHandled)
    const first = await startAlone("step")
    await feeder.only(30)
    await untilStopped(first)
    // in the log before the second process reads it, and more than the first one has read
    await feeder.only(30)
    const ends = await feeder.ends()
    const second = await startAlone("stop")
    await untilStopped(second)
    for (const worker of [first, second]) {
      worker.signal("SIGCONT")
      const answered = () => worker.fenced + worker.answered > 0 || worker.exit !== undefined
      await this.run.until("answer to the commit of a continued process", answered)
    }
    first.signal("SIGCONT")
    await this.run.until("processing after an overlap", () => isHandled(services.sql, ends))
    await this.restock("projections")
    await Promise.all([first.end("SIGTERM"), second.end("SIGTERM")])
    return first.fenced > 0
  }
  private async relayZombie({ name }: Of<"relayZombie">) {
    const { services } = this.run
    const armed = await this.start("relay", `stop:${name}:1`)
    await this.leaveTo("relay", armed)
    await this.run.until("a relay to be stopped", () => armed.stopped)
    await this.restock("relay")
    // a relay whose session lives keeps its lane, so its session is ended
    await this.run.until("end of the session that holds the lane", async () => (await endLanes(services.sql)) > 0)
    await this.run.relayed("takeover from a stopped relay")
    armed.signal("SIGCONT")
    await this.run.feeder.feed(200)
    await this.run.relayed("relaying beside a continued relay")
    this.run.note("relay zombie")
    await armed.end("SIGTERM")
  }
  private async relayFight({ times }: Of<"relayFight">) {
    const environment = { MILLRACE_GREED: "1" }
    await this.gate.passage
    const pair = [1, 2].map(() => this.run.fleet.start("relay", { environment }))
    await this.leaveTo("relay", ...pair)
    const overtaken = () => pair.every((worker) => worker.overtaken >= times)
    await this.run.until("two relays to fence each other", overtaken)
    this.run.note("two relays on one lane")
    await Promise.all(pair.map((worker) => worker.end("SIGTERM")))
  }

  private async endBackends({ held }: Of<"endBackends">) {
    const { feeder, services } = this.run
    let ended = 0
    const release = held ? await holdCommits(services.connect) : undefined
    try {
      if (!held) await feeder.feed(400)
      await this.run.until(
        "a session that executes a commit",
        async () => (ended += await endCommits(services.sql)) > 0
      )
    } finally {
      await release?.()
    }
    this.run.note("backend ended during commit", ended)
  }
  private async loseReplies(losses: ReadonlyArray<Loss>) {
    const proxy = new CommitProxy(this.run.services.url)
    await proxy.open()
    const worker = await this.start("projections", undefined, proxy.url)
    try {
      for (const loss of losses) {
        const before = proxy.losses
        proxy.arm(loss)
        await this.run.until("commit through the proxy", () => proxy.losses > before)
        this.run.note(`commit's reply lost, ${loss}`)
      }
      await worker.end("SIGTERM")
    } finally {
      await proxy.close()
    }
  }
}
