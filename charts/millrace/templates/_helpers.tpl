{{/* What everything of this release is called. Helm's limit of 53 characters leaves room for the suffix. */}}
{{- define "millrace.name" -}}
{{ .Release.Name | replace "." "-" }}-operator
{{- end }}

{{/* What cluster-scoped objects are called: two releases may have one name in two namespaces. */}}
{{- define "millrace.clusterName" -}}
{{ include "millrace.name" . }}:{{ .Release.Namespace }}
{{- end }}

{{- define "millrace.selectorLabels" -}}
app.kubernetes.io/name: millrace-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "millrace.labels" -}}
{{ include "millrace.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "millrace.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{ .Values.serviceAccount.name | default (include "millrace.name" .) }}
{{- else -}}
{{ .Values.serviceAccount.name | default "default" }}
{{- end -}}
{{- end }}

{{- define "millrace.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end }}

{{/* The service account as the subject of a binding. */}}
{{- define "millrace.subject" -}}
- kind: ServiceAccount
  name: {{ include "millrace.serviceAccountName" . }}
  namespace: {{ .Release.Namespace }}
{{- end }}

{{/* What the operator may do where it looks after StreamJobs. It reads no Secret and no ConfigMap. */}}
{{- define "millrace.rules" -}}
- apiGroups: [millrace.dev]
  resources: [streamjobs]
  verbs: [get, list, watch, patch]
- apiGroups: [millrace.dev]
  resources: [streamjobs/status]
  verbs: [update]
# For owner references that hold up their owner's deletion.
- apiGroups: [millrace.dev]
  resources: [streamjobs/finalizers]
  verbs: [update]
- apiGroups: [apps]
  resources: [statefulsets]
  verbs: [get, list, watch, create, patch, delete]
# To delete: a pod that hangs in Terminating on a node that is gone.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [list, watch, create, patch]
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [list, watch, create, patch]
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end }}

{{/* {a: b, c: d} as a=b,c=d. */}}
{{- define "millrace.labelList" -}}
{{- $pairs := list -}}
{{- range $key, $value := . -}}
{{- $pairs = append $pairs (printf "%s=%s" $key $value) -}}
{{- end -}}
{{ join "," $pairs }}
{{- end }}
