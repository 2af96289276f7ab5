// The part of a run that the harnesses share: log lines, the faults that happened, load in the background, waiting, and the figures of the report.
import { setTimeout as sleep } from "node:timers/promises"
import { Differences } from "./differences.ts"
import type { Outcome } from "./command.ts"
import type { Fleet } from "./fleet.ts"
import { until } from "./until.ts"

/** Options of every run. */
export interface FaultRunOptions {
  /** How long the run waits for anything, in milliseconds. Default one minute. */
  readonly patienceMs?: number
  readonly say?: (line: string) => void
}

/** The part of a report that all harnesses have. */
export interface Figures extends Outcome {
  /** How often each fault happened. */
  readonly faults: Readonly<Record<string, number>>
  /** Processes that were started. */
  readonly processes: number
  readonly seconds: number
}

/** A run of a harness. */
export abstract class FaultRun<O extends FaultRunOptions> {
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
  /** Lines that describe the state of the run. */
  protected abstract describe(): Promise<ReadonlyArray<string>>

  say(line: string): void {
    this.options.say?.(line)
  }
  /** Counts a fault that has happened. */
  note(fault: string, count = 1): void {
    this.faults[fault] = (this.faults[fault] ?? 0) + count
  }
  /** Calls `feed` again and again until `stopFeeding`, so that points are reached while steps wait for them. */
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
  /** Makes every wait fail with this error from now on. */
  readonly fail = (error: unknown): void => {
    this.failed ??= error
  }
  /** Throws the error that `fail` was called with, if it was. */
  assertSound(): void {
    if (this.failed !== undefined) throw this.failed
  }
  /** Asks until the answer is true; see `until`. `moreMs`: how long it may take beside what the run waits for anything. */
  async until(what: string, ask: () => boolean | Promise<boolean>, moreMs = 0): Promise<void> {
    await until(what, ask, {
      patienceMs: (this.options.patienceMs ?? 60_000) + moreMs,
      fleet: this.fleet,
      assertSound: () => this.assertSound(),
      describe: () => this.describe()
    })
  }
  /** What every report has. `began` is when it began, by `performance.now`; `hang` why it did not finish, undefined if it did. */
  figures(began: number, hang: string | undefined): Figures {
    const { doubled, lost, order, wrong } = this.differences.counts
    return {
      faults: this.faults,
      processes: this.fleet.started,
      seconds: Math.round((performance.now() - began) / 100) / 10,
      lost,
      doubled,
      disordered: order,
      wrong,
      hang,
      examples: this.differences.examples
    }
  }
}
