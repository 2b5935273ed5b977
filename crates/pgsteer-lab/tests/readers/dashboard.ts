// Checks the dashboard, which the test appends to the last line, against Grafana's own types. Where
// a type has an enum, one of its values as a plain string is valid as well.
import type { Dashboard } from "@grafana/schema";

type Plain<T> = T extends (infer Each)[]
  ? Plain<Each>[]
  : T extends string
    ? string extends T ? string : `${T}`
    : T extends object
      ? { [Key in keyof T]: Plain<T[Key]> }
      : T;

export const dashboard: Plain<Dashboard> =
