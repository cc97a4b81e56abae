# Written by generate.py from the templates in infra/aws: `make docs`.

variable "image_tag" {
  description = "The images are Repository:train-<tag> and Repository:summarize-<tag>; make deploy sets it."
  type        = string
  default     = "none"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9_][A-Za-z0-9_.-]{0,100})$", var.image_tag))
    error_message = "The value of image_tag must match [A-Za-z0-9_][A-Za-z0-9_.-]{0,100}."
  }
}

variable "bucket_name" {
  description = "Name of the stack's bucket. Set it at the first deployment only, since another name makes another bucket. Empty lets CloudFormation choose."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:|[a-z0-9][a-z0-9.-]{1,61}[a-z0-9])$", var.bucket_name))
    error_message = "The value of bucket_name must match |[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]."
  }
}

variable "input_bucket" {
  description = "A bucket of yours that jobs may read in addition to the stack's own. Empty means none."
  type        = string
  default     = ""
  nullable    = false
}

variable "train_input" {
  description = "The keys of InputBucket that trainings may read, for example labelled/*. Needed with InputBucket."
  type        = string
  default     = ""
  nullable    = false
}

variable "night_input" {
  description = "The keys of InputBucket that nights may read, for example calls/*. Needed with InputBucket."
  type        = string
  default     = ""
  nullable    = false
}

variable "hf_token_secret_arn" {
  description = "ARN of a Secrets Manager secret whose text is HF_TOKEN of trainings. Empty means none."
  type        = string
  default     = ""
  nullable    = false
}

variable "night_hf_token_secret_arn" {
  description = "The same for nights. It is needed only if their base is a gated one of the Hub."
  type        = string
  default     = ""
  nullable    = false
}

variable "instance_types" {
  description = "Instance types that Batch may start, all x86, with GPUs from Turing on. Several types find Spot capacity sooner."
  type        = list(string)
  default     = ["g6.2xlarge", "g5.2xlarge", "g6.4xlarge", "g5.4xlarge"]
  nullable    = false
}

variable "max_vcpus" {
  description = "Maximum vCPUs of Spot machines at once, again of on-demand machines, and again of machines for several nodes."
  type        = number
  default     = 64
  nullable    = false

  validation {
    condition     = var.max_vcpus >= 0
    error_message = "The value of max_vcpus must be at least 0."
  }
}

variable "disk_gib" {
  description = "Size of each machine's disk, for image, base model, checkpoints and outputs."
  type        = number
  default     = 200
  nullable    = false

  validation {
    condition     = var.disk_gib >= 60
    error_message = "The value of disk_gib must be at least 60."
  }
}

variable "machines_revision" {
  description = "Any other value than before, for example the date, replaces the machines by ones with AWS's newest image."
  type        = string
  default     = "1"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9.-]{1,100})$", var.machines_revision))
    error_message = "The value of machines_revision must match [A-Za-z0-9.-]{1,100}."
  }
}

variable "placement_group" {
  description = "Start the nodes of one training side by side, in the first subnet. Communication is faster; capacity is found later."
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.placement_group)
    error_message = "The value of placement_group must be one of on, off."
  }
}

variable "session_manager" {
  description = "Let people who may use Session Manager open a shell on a machine."
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.session_manager)
    error_message = "The value of session_manager must be one of on, off."
  }
}

variable "vpc_id" {
  description = "A VPC of yours. Empty creates a small one with public subnets that accepts no connections from outside."
  type        = string
  default     = ""
  nullable    = false
}

variable "subnet_ids" {
  description = "Subnets of VpcId that reach S3, ECR, ECS, CloudWatch Logs and (for Hub models) the internet."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "security_group_ids" {
  description = "Security groups of VpcId for the machines. Empty creates one that allows HTTPS to anywhere, and nothing else."
  type        = list(string)
  default     = []
  nullable    = false
}

variable "https_proxy" {
  description = "URL of a proxy, without a login, for the jobs, docker and the ECS agent. Empty means none."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:|https?://[A-Za-z0-9._:/-]+)$", var.https_proxy))
    error_message = "The value of https_proxy must match |https?://[A-Za-z0-9._:/-]+."
  }
}

variable "no_proxy" {
  description = "Hosts that are reached without the proxy. Add to these four, and add S3 if the VPC has an endpoint for it."
  type        = string
  default     = "localhost,127.0.0.1,169.254.169.254,169.254.170.2"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9.,:/*-]+)$", var.no_proxy))
    error_message = "The value of no_proxy must match [A-Za-z0-9.,:/*-]+."
  }
}

variable "hf_endpoint" {
  description = "URL of a mirror of the Hub (HF_ENDPOINT). Empty means the Hub."
  type        = string
  default     = ""
  nullable    = false

  validation {
    condition     = can(regex("^(?:|https?://[A-Za-z0-9._:/-]+)$", var.hf_endpoint))
    error_message = "The value of hf_endpoint must match |https?://[A-Za-z0-9._:/-]+."
  }
}

variable "gpus" {
  description = "GPUs of a job, on each node. With 0, name InstanceTypes without GPUs."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.gpus >= 0
    error_message = "The value of gpus must be at least 0."
  }
}

variable "vcpus" {
  description = "vCPUs of a job, on each node."
  type        = number
  default     = 8
  nullable    = false

  validation {
    condition     = var.vcpus >= 1
    error_message = "The value of vcpus must be at least 1."
  }
}

variable "memory_mib" {
  description = "Memory of a job, on each node. ECS keeps a part of the machine's for itself."
  type        = number
  default     = 28000
  nullable    = false

  validation {
    condition     = var.memory_mib >= 1024
    error_message = "The value of memory_mib must be at least 1024."
  }
}

variable "shared_memory_mib" {
  description = "Size of a job's /dev/shm, which data loaders and NCCL use. Only its used part counts as memory."
  type        = number
  default     = 8192
  nullable    = false

  validation {
    condition     = var.shared_memory_mib >= 64
    error_message = "The value of shared_memory_mib must be at least 64."
  }
}

variable "nodes" {
  description = "Number of nodes of a training on several nodes, unless its submission sets another."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.nodes >= 2
    error_message = "The value of nodes must be at least 2."
  }
}

variable "attempts" {
  description = "Maximum number of attempts of a job. Each Spot reclaim uses one."
  type        = number
  default     = 10
  nullable    = false

  validation {
    condition     = var.attempts >= 1
    error_message = "The value of attempts must be at least 1."
  }

  validation {
    condition     = var.attempts <= 10
    error_message = "The value of attempts must be at most 10."
  }
}

variable "train_timeout_seconds" {
  description = "Maximum duration of one attempt of a training."
  type        = number
  default     = 172800
  nullable    = false

  validation {
    condition     = var.train_timeout_seconds >= 60
    error_message = "The value of train_timeout_seconds must be at least 60."
  }
}

variable "summarize_timeout_seconds" {
  description = "Maximum duration of one attempt of a summarizing worker."
  type        = number
  default     = 21600
  nullable    = false

  validation {
    condition     = var.summarize_timeout_seconds >= 60
    error_message = "The value of summarize_timeout_seconds must be at least 60."
  }
}

variable "night" {
  description = "Schedule the night's job. Turn it on when there is an adapter to summarize with."
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.night)
    error_message = "The value of night must be one of on, off."
  }
}

variable "night_config" {
  description = "Key of the night's config in the stack's bucket. Its {date} is the day before the night."
  type        = string
  default     = "configs/nightly.yaml"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[^/\"\\\\][^\"\\\\]*)$", var.night_config))
    error_message = "The value of night_config must match [^/\"\\\\][^\"\\\\]*."
  }
}

variable "night_workers" {
  description = "Number of workers that share the night."
  type        = number
  default     = 1
  nullable    = false

  validation {
    condition     = var.night_workers >= 1
    error_message = "The value of night_workers must be at least 1."
  }

  validation {
    condition     = var.night_workers <= 10000
    error_message = "The value of night_workers must be at most 10000."
  }
}

variable "night_start" {
  description = "Time at which the night's job is submitted, in TimeZone."
  type        = string
  default     = "cron(0 4 * * ? *)"
  nullable    = false
}

variable "time_zone" {
  description = "IANA name of the time zone of NightStart, NightDue, and the day in {date}."
  type        = string
  default     = "UTC"
  nullable    = false
}

variable "alarm_email" {
  description = "Address that gets alarms and must confirm once. Empty means nobody, until you subscribe to the topic."
  type        = string
  default     = ""
  nullable    = false
}

variable "log_days" {
  description = "Number of days for which logs are kept."
  type        = number
  default     = 90
  nullable    = false

  validation {
    condition     = contains([7, 14, 30, 60, 90, 120, 180, 365, 400, 545, 731], var.log_days)
    error_message = "The value of log_days must be one of 7, 14, 30, 60, 90, 120, 180, 365, 400, 545, 731."
  }
}

variable "night_due" {
  description = "Time at which the night must have finished, in TimeZone. Otherwise there is an alarm."
  type        = string
  default     = "cron(0 8 * * ? *)"
  nullable    = false
}

variable "night_hours" {
  description = "A run that ends within this many hours before NightDue counts as that night. Set it to the hours since NightStart, and one more."
  type        = number
  default     = 5
  nullable    = false

  validation {
    condition     = var.night_hours >= 1
    error_message = "The value of night_hours must be at least 1."
  }

  validation {
    condition     = var.night_hours <= 24
    error_message = "The value of night_hours must be at most 24."
  }
}

variable "night_run" {
  description = "The run in the night's config, with * for the part that changes. Only such runs count as the night's end."
  type        = string
  default     = "nightly*"
  nullable    = false

  validation {
    condition     = can(regex("^(?:[A-Za-z0-9._*-]+)$", var.night_run))
    error_message = "The value of night_run must match [A-Za-z0-9._*-]+."
  }
}

variable "max_reject_percent" {
  description = "A night that rejects a larger share of the records that it did not skip raises an alarm. The config's own limit fails the job."
  type        = number
  default     = 2
  nullable    = false
}

variable "max_wait_seconds" {
  description = "A job that waits longer for a machine raises an alarm."
  type        = number
  default     = 7200
  nullable    = false

  validation {
    condition     = var.max_wait_seconds >= 60
    error_message = "The value of max_wait_seconds must be at least 60."
  }

  validation {
    condition     = var.max_wait_seconds <= 604800
    error_message = "The value of max_wait_seconds must be at most 604800."
  }
}

variable "watch" {
  description = "Whether recap watch runs after each scheduled night that succeeded."
  type        = string
  default     = "on"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.watch)
    error_message = "The value of watch must be one of on, off."
  }
}

variable "watch_config" {
  description = "Key of the config of recap watch in the bucket."
  type        = string
  default     = "configs/watch.yaml"
  nullable    = false
}

variable "week" {
  description = "Whether feedback and a challenger are scheduled each week."
  type        = string
  default     = "off"
  nullable    = false

  validation {
    condition     = contains(["on", "off"], var.week)
    error_message = "The value of week must be one of on, off."
  }
}

variable "week_start" {
  description = "Time at which a week begins, in TimeZone. Its date is that of its Monday."
  type        = string
  default     = "cron(0 9 ? * MON *)"
  nullable    = false
}

variable "feedback_config" {
  description = "Key of the config of recap feedback in the bucket. Its output is below data/feedback/."
  type        = string
  default     = "configs/feedback.yaml"
  nullable    = false
}

variable "challenger_config" {
  description = "Key of the config of recap train in the bucket, with a gate and a champion."
  type        = string
  default     = "configs/challenger.yaml"
  nullable    = false
}

variable "feedback_vcpus" {
  description = "Cores of the job of feedback."
  type        = number
  default     = 2
  nullable    = false

  validation {
    condition     = var.feedback_vcpus >= 1
    error_message = "The value of feedback_vcpus must be at least 1."
  }
}

variable "feedback_memory_mib" {
  description = "Memory of the job of feedback, which holds all verdicts and their conversations."
  type        = number
  default     = 8192
  nullable    = false

  validation {
    condition     = var.feedback_memory_mib >= 1024
    error_message = "The value of feedback_memory_mib must be at least 1024."
  }
}

locals {
  recap_parameters = {
    ImageTag                = var.image_tag
    BucketName              = var.bucket_name
    InputBucket             = var.input_bucket
    TrainInput              = var.train_input
    NightInput              = var.night_input
    HfTokenSecretArn        = var.hf_token_secret_arn
    NightHfTokenSecretArn   = var.night_hf_token_secret_arn
    InstanceTypes           = join(",", var.instance_types)
    MaxVcpus                = var.max_vcpus
    DiskGiB                 = var.disk_gib
    MachinesRevision        = var.machines_revision
    PlacementGroup          = var.placement_group
    SessionManager          = var.session_manager
    VpcId                   = var.vpc_id
    SubnetIds               = join(",", var.subnet_ids)
    SecurityGroupIds        = join(",", var.security_group_ids)
    HttpsProxy              = var.https_proxy
    NoProxy                 = var.no_proxy
    HfEndpoint              = var.hf_endpoint
    Gpus                    = var.gpus
    Vcpus                   = var.vcpus
    MemoryMiB               = var.memory_mib
    SharedMemoryMiB         = var.shared_memory_mib
    Nodes                   = var.nodes
    Attempts                = var.attempts
    TrainTimeoutSeconds     = var.train_timeout_seconds
    SummarizeTimeoutSeconds = var.summarize_timeout_seconds
    Night                   = var.night
    NightConfig             = var.night_config
    NightWorkers            = var.night_workers
    NightStart              = var.night_start
    TimeZone                = var.time_zone
    AlarmEmail              = var.alarm_email
    LogDays                 = var.log_days
  }

  watch_parameters = {
    Stack            = lookup(data.aws_cloudformation_stack.recap.outputs, "Stack", null)
    LogGroup         = lookup(data.aws_cloudformation_stack.recap.outputs, "LogGroup", null)
    Queue            = lookup(data.aws_cloudformation_stack.recap.outputs, "Queue", null)
    NightQueue       = lookup(data.aws_cloudformation_stack.recap.outputs, "NightQueue", null)
    NodesQueue       = lookup(data.aws_cloudformation_stack.recap.outputs, "NodesQueue", null)
    Alarms           = lookup(data.aws_cloudformation_stack.recap.outputs, "Alarms", null)
    Night            = lookup(data.aws_cloudformation_stack.recap.outputs, "Night", null)
    ScheduleGroup    = lookup(data.aws_cloudformation_stack.recap.outputs, "ScheduleGroup", null)
    NightDeadLetters = lookup(data.aws_cloudformation_stack.recap.outputs, "NightDeadLetters", null)
    TimeZone         = lookup(data.aws_cloudformation_stack.recap.outputs, "TimeZone", null)
    NightDue         = var.night_due
    NightHours       = var.night_hours
    NightRun         = var.night_run
    MaxRejectPercent = var.max_reject_percent
    MaxWaitSeconds   = var.max_wait_seconds
  }

  follow_parameters = {
    Stack              = lookup(data.aws_cloudformation_stack.recap.outputs, "Stack", null)
    Bucket             = lookup(data.aws_cloudformation_stack.recap.outputs, "Bucket", null)
    InputBucket        = var.input_bucket
    NightInput         = var.night_input
    LogGroup           = lookup(data.aws_cloudformation_stack.recap.outputs, "LogGroup", null)
    Queue              = lookup(data.aws_cloudformation_stack.recap.outputs, "Queue", null)
    NightQueue         = lookup(data.aws_cloudformation_stack.recap.outputs, "NightQueue", null)
    TrainJobDefinition = lookup(data.aws_cloudformation_stack.recap.outputs, "TrainJobDefinition", null)
    Alarms             = lookup(data.aws_cloudformation_stack.recap.outputs, "Alarms", null)
    ScheduleGroup      = lookup(data.aws_cloudformation_stack.recap.outputs, "ScheduleGroup", null)
    NightDeadLetters   = lookup(data.aws_cloudformation_stack.recap.outputs, "NightDeadLetters", null)
    TimeZone           = lookup(data.aws_cloudformation_stack.recap.outputs, "TimeZone", null)
    Image              = "${data.aws_cloudformation_stack.recap.outputs["Repository"]}:recap-${var.image_tag}"
    NightRole          = lookup(data.aws_cloudformation_stack.recap.outputs, "NightRole", null)
    ExecutionRole      = lookup(data.aws_cloudformation_stack.recap.outputs, "ExecutionRole", null)
    HttpsProxy         = var.https_proxy
    NoProxy            = var.no_proxy
    Watch              = var.watch
    WatchConfig        = var.watch_config
    Week               = var.week
    WeekStart          = var.week_start
    FeedbackConfig     = var.feedback_config
    ChallengerConfig   = var.challenger_config
    FeedbackVcpus      = var.feedback_vcpus
    FeedbackMemoryMiB  = var.feedback_memory_mib
  }
}
