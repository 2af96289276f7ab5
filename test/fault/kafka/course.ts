// What every run has while it is under way: what it says, the faults it went through, what is fed meanwhile, and what it waits for.
import { setTimeout as sleep } from "node:timers/promises"
import { Differences } from "./differences.ts"
import type { Fleet } from "./fleet.ts"
import { until } from "./until.ts"

/** What every run may be told. */
export interface CourseOptions {
  /** How long anything may take to come about. */
  readonly patienceMs?: number
  readonly say?: (line: string) => void
}

/** A run, whatever it runs. */
export abstract class Course<O extends CourseOptions> {
  readonly options: O
  readonly fleet: Fleet
  readonly differences = new Differences()
  readonly faults: Record<string, number> = {}
  private trickling = true
  private trickle: Promise<void> = Promise.resolve()
  private failed: unknown

  constructor(options: O, fleet: Fleet) {
    this.options = options
    this.fleet = fleet
  }
  /** Lines that tell where everything is. */
  protected abstract describe(): Promise<ReadonlyArray<string>>

  say(line: string): void {
    this.options.say?.(line)
  }
  note(fault: string, count = 1): void {
    this.faults[fault] = (this.faults[fault] ?? 0) + count
  }
  /** Feeds a little now and then, so that whatever is waited for finds some, until `stopFeeding`. */
  protected feedOn(feed: () => Promise<void>, everyMs: number): void {
    const drip = async () => {
      for (; this.trickling; await sleep(everyMs)) await feed().catch(this.fail)
    }
    this.trickle = drip()
  }
  async stopFeeding(): Promise<void> {
    this.trickling = false
    await this.trickle
  }
  /** Whatever is waited for fails with this from now on. */
  readonly fail = (error: unknown): void => {
    this.failed ??= error
  }
  /** Throws what failed, if anything did. */
  assertSound(): void {
    if (this.failed !== undefined) throw this.failed
  }
  /** Asks until it is so. Questions that fail, as to a server that is away, are asked again. */
  async until(what: string, ask: () => boolean | Promise<boolean>): Promise<void> {
    await until(what, ask, {
      patienceMs: this.options.patienceMs ?? 60_000,
      fleet: this.fleet,
      assertSound: () => this.assertSound(),
      describe: () => this.describe()
    })
  }
}
