variable "name" {
  description = "What everything is named after."
  type        = string
  default     = "iadr1"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,20}$", var.name))
    error_message = "The name has to be 3 to 21 of a-z, 0-9 and -, and to begin with a letter: buckets and roles are named after it."
  }
}

variable "region" {
  description = "The AWS region; the images stay in it."
  type        = string

  validation {
    condition     = can(regex("^[a-z]{2}(-[a-z]+)+-[0-9]$", var.region))
    error_message = "The region has to look like eu-central-1."
  }
}

variable "network" {
  description = "The private network, a /16 inside 10.0.0.0/8: infra/k8s/base/network.yaml lets pods reach that."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrhost(var.network, 0)) && can(regex("^10\\..*/16$", var.network))
    error_message = "The network has to be a /16 inside 10.0.0.0/8, such as 10.40.0.0/16."
  }
}

variable "administrators" {
  description = "The networks from which the cluster's API may be reached; none: from inside only."
  type        = list(string)
  default     = []

  validation {
    condition     = alltrue([for block in var.administrators : can(cidrhost(block, 0)) && block != "0.0.0.0/0"])
    error_message = "Each has to be a network such as 203.0.113.0/24, and none the whole internet."
  }
}

variable "kubernetes_version" {
  description = "The cluster's version."
  type        = string
  default     = "1.34"

  validation {
    condition     = can(regex("^1\\.[0-9]{2}$", var.kubernetes_version))
    error_message = "The version has to look like 1.34."
  }
}

variable "database_class" {
  description = "The size of the database."
  type        = string
  default     = "db.t4g.small"

  validation {
    condition     = startswith(var.database_class, "db.")
    error_message = "The class has to be one of RDS, such as db.t4g.small."
  }
}

variable "database_two_zones" {
  description = "Whether a second zone holds a copy of the database, at twice its price."
  type        = bool
  default     = false
}

variable "gpu_instance_types" {
  description = "What the pool of GPUs may consist of, the wanted ones first; more kinds find a spot more often."
  type        = list(string)
  default     = ["g6e.2xlarge", "g6e.4xlarge", "g5.4xlarge"]

  validation {
    condition     = length(var.gpu_instance_types) > 0 && alltrue([for kind in var.gpu_instance_types : can(regex("^[gp][0-9]", kind))])
    error_message = "Name at least one, and only kinds with a GPU: g5, g6, g6e, p4d, p5 and so on."
  }
}

variable "gpu_nodes_most" {
  description = "How many GPU nodes there may be at once; there are none while nothing needs one."
  type        = number
  default     = 2

  validation {
    condition     = var.gpu_nodes_most >= 1 && var.gpu_nodes_most <= 16 && floor(var.gpu_nodes_most) == var.gpu_nodes_most
    error_message = "A whole number from 1 to 16."
  }
}

variable "monthly_budget" {
  description = "Dollars of a month: mail at half, at four fifths as forecast, and when it is spent."
  type        = number

  validation {
    condition     = var.monthly_budget > 0
    error_message = "The budget has to be more than nothing."
  }
}

variable "budget_mail" {
  description = "Who is told of the budget."
  type        = string

  validation {
    condition     = can(regex("^[^@ ]+@[^@ ]+$", var.budget_mail))
    error_message = "This has to be a mail address."
  }
}
